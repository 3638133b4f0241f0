"Texts and pictures go the whole way that a table goes: `mlbench new`, six notebooks, a registered model, a service; no file is edited."

from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlbench.core.errors import UsageError
from mlbench.core.files import read_json
from mlbench.deployment import Bundle, ask, start_service

pytestmark = pytest.mark.slow
STAGES = ["01_problem", "02_eda", "03_features", "04_training", "05_evaluation", "06_deployment"]
GOOD = ["a moving and clever film", "wonderful acting , warm and funny", "i loved every minute", "smart , fresh and beautiful", "a joy from start to end"]
BAD = ["a dull and lazy film", "terrible acting , cold and boring", "i regret every minute", "stale , loud and ugly", "a bore from start to end"]
FILLER = ["the", "of", "and", "story", "plot", "it", "this", "about", "people", "with", "music", "director", "scene", "camera", "but", "one", "which", "over"]


FEW = ["-p", "features.patches=60"]  # of 400: the folder of images is run with all of them


def sentences(rows: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    "Reviews that praise or complain, with words that say nothing; one of fifteen has the wrong label."
    rng = np.random.default_rng(seed)
    liked = rng.integers(0, 2, rows)
    said = [f"{' '.join(rng.choice(FILLER, 4))} {rng.choice(GOOD if up else BAD)} {' '.join(rng.choice(FILLER, 3))}" for up in liked]
    return said, np.where(rng.random(rows) < 1 / 15, 1 - liked, liked)


def digits(rows: int, seed: int = 0) -> tuple[list[bytes], np.ndarray]:
    "Written digits of 8 by 8 pixels as PNG, and which they are."
    from PIL import Image
    from sklearn.datasets import load_digits

    pictures, truth = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(truth))[:rows]
    files = []
    for at in order:
        out = io.BytesIO()
        Image.fromarray((pictures[at].reshape(8, 8) * 255 / 16).astype(np.uint8)).save(out, "PNG")
        files.append(out.getvalue())
    return files, truth[order]


def text_table(folder: Path) -> dict:
    "Three hundred reviews in a CSV."
    said, liked = sentences(300)
    pd.DataFrame({"review": said, "liked": np.where(liked == 1, "yes", "no")}).to_csv(folder / "reviews.csv", index=False)
    return {"data": "reviews.csv", "target": "liked", "ask": {"review": "the story , i loved every minute of it"}, "answer": "yes", "metric": 0.75}


def image_folder(folder: Path) -> dict:
    "Three hundred digits as files in ten folders."
    files, truth = digits(300)
    for n, (data, digit) in enumerate(zip(files, truth)):
        place = folder / "digits" / f"digit {digit}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{n:03}.png").write_bytes(data)
    (folder / "digits" / "digit 0" / "broken.png").write_bytes(files[0][:60])
    return {"data": "digits", "target": "label", "ask": {"image": uri(files[0])}, "answer": f"digit {truth[0]}", "metric": 0.6}


def path_table(folder: Path) -> dict:
    "The same digits as a CSV with a column of paths."
    files, truth = digits(300)
    (folder / "scans").mkdir()
    for n, data in enumerate(files):
        (folder / "scans" / f"{n:03}.png").write_bytes(data)
    rows = pd.DataFrame({"file": [f"scans/{n:03}.png" for n in range(300)], "digit": [f"d{d}" for d in truth]})
    rows.to_csv(folder / "scans.csv", index=False)
    return {"data": "scans.csv", "target": "digit", "ask": {"file": uri(files[0])}, "answer": f"d{truth[0]}", "metric": 0.6, "run": FEW}


def mixed_table(folder: Path) -> dict:
    "Two hundred offers with a text, a picture, a number and a category, of which each says a part of the answer."
    (said, liked), (files, truth) = sentences(200, 1), digits(200, 1)
    rng = np.random.default_rng(1)
    (folder / "photos").mkdir()
    for n, data in enumerate(files):
        (folder / "photos" / f"{n}.png").write_bytes(data)
    rows = pd.DataFrame({"note": said, "photo": [f"photos/{n}.png" for n in range(200)], "price": rng.normal(50, 10, 200).round(2)})
    rows["town"] = rng.choice(["Graz", "Linz", "Wien"], 200)
    rows["sold"] = np.where(2.0 * liked + (truth > 4) - 0.06 * (rows["price"] - 50) + (rows["town"] == "Graz") > 1.7, "sold", "left")
    rows.loc[::17, "note"] = None
    rows.loc[3::19, "photo"] = None
    rows.to_csv(folder / "offers.csv", index=False)
    given = {"note": "this one i loved every minute", "photo": uri(files[int(np.argmax(truth))]), "price": 30.0, "town": "Graz"}
    return {"data": "offers.csv", "target": "sold", "ask": given, "answer": "sold", "metric": 0.6, "run": FEW}


def uri(data: bytes) -> str:
    "A picture as a client sends it."
    return "data:image/png;base64," + base64.b64encode(data).decode()


def mlbench(*words, cwd):
    "Run the command line in a folder; what it said on failure."
    done = subprocess.run([sys.executable, "-m", "mlbench", *map(str, words)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout.strip().splitlines()[-1].strip()


@pytest.fixture(scope="module", params=[text_table, image_folder, path_table, mixed_table], ids=lambda made: made.__name__)
def chain(request, tmp_path_factory):
    "What was asked, and the run that came of it."
    folder = tmp_path_factory.mktemp(request.param.__name__)
    case = request.param(folder)
    mlbench("new", "shop", "--data", case["data"], "--target", case["target"], cwd=folder)
    run = folder / "shop" / "runs" / Path(mlbench("run", "shop", *case.get("run", []), cwd=folder)).name
    return case, run


def artifacts(run: Path, stage: str) -> Path:
    return run / "stages" / stage / "artifacts"


def test_six_stages_are_complete_and_small(chain):
    _, run = chain
    assert read_json(run / "run.json")["status"] == "done"
    for stage in STAGES:
        notebook = run / "stages" / stage / "notebook.ipynb"
        assert read_json(run / "stages" / stage / "manifest.json")["artifacts"], stage
        assert not [o for c in read_json(notebook)["cells"] for o in c.get("outputs", []) if o["output_type"] == "error"]
        assert notebook.stat().st_size <= 1_000_000, stage


def test_networks_and_linear_models_of_the_kind_were_compared(chain):
    case, run = chain
    tried = {c["name"]: c for c in read_json(artifacts(run, "04_training") / "trials.json")["candidates"]}
    assert {"dummy", "network"} < set(tried) and {"word_linear", "patch_linear"} & set(tried)
    assert ("word_linear" in tried) == (case["data"] in ("reviews.csv", "offers.csv")) and ("patch_linear" in tried) == (case["data"] != "reviews.csv")
    assert not {name: c["failure"] for name, c in tried.items() if c["failure"]}, "every candidate came to its end"
    assert all(set(again) >= {"steps", "keep"} for again in tried["network"]["again"]), "the plan of a network is on record"


def test_the_model_learnt_something(chain):
    case, run = chain
    metrics = read_json(artifacts(run, "05_evaluation") / "metrics.json")["metrics"]
    found = metrics.get("balanced_accuracy") or metrics.get("accuracy") or metrics["roc_auc"]
    assert found["value"] > case["metric"]


def test_it_is_proven_registered_and_served(chain):
    case, run = chain
    parity = read_json(artifacts(run, "06_deployment") / "parity.json")
    assert parity["passed"] and parity["rows"] > 100
    bundle = Bundle.load(artifacts(run, "06_deployment") / "bundle")
    with start_service(bundle.folder) as service:
        assert ask(service.url, [case["ask"]])["predictions"] == [case["answer"]]
        empty = dict.fromkeys(case["ask"])
        assert len(ask(service.url, [empty, case["ask"]])["predictions"]) == 2, "everything may be missing"
        for column, value in case["ask"].items():
            if isinstance(value, str) and value.startswith("data:"):
                for wrong in ("/etc/passwd", "data:image/png;base64,AAAA", value[:-40]):
                    with pytest.raises(UsageError, match=f"422.*{column}"):
                        ask(service.url, [case["ask"] | {column: wrong}])


def test_an_unchanged_run_starts_no_kernel(chain):
    case, run = chain
    before = sorted(p.name for p in run.parent.iterdir())
    assert Path(mlbench("run", "shop", *case.get("run", []), cwd=run.parents[2])).name == run.name
    assert sorted(p.name for p in run.parent.iterdir()) == before


def reader_for(folder: Path) -> tuple[dict, str]:
    "Reviews, and a checkpoint that knows some of their words."
    from checkpoints import saved_reader

    return text_table(folder), str(saved_reader(folder / "reader", sorted({w for s in [*GOOD, *BAD] for w in s.split()} | set(FILLER))))


def viewer_for(folder: Path) -> tuple[dict, str]:
    "Digits by their paths, and a checkpoint that looks at pictures."
    from checkpoints import saved_viewer

    return path_table(folder), str(saved_viewer(folder / "viewer"))


@pytest.mark.parametrize("made", [reader_for, viewer_for], ids=lambda made: made.__name__)
def test_a_checkpoint_and_smaller_files_go_the_whole_way(made, tmp_path):
    case, checkpoint = made(tmp_path)
    kind = "text_checkpoint" if made is reader_for else "image_checkpoint"
    rival = "word_linear" if made is reader_for else "patch_linear"
    mlbench("new", "shop", "--data", case["data"], "--target", case["target"], cwd=tmp_path)
    wanted = ["-p", f"training.checkpoint={checkpoint}", "-p", f"training.models=[dummy,{rival}]", "-p", "deployment.shrink=auto"]
    run = tmp_path / "shop" / "runs" / Path(mlbench("run", "shop", *wanted, "-p", "deployment.shrink_seconds=10", *case.get("run", []), cwd=tmp_path)).name
    tried = {c["name"]: c for c in read_json(artifacts(run, "04_training") / "trials.json")["candidates"]}
    assert set(tried) == {"dummy", rival, f"{kind}_frozen", f"{kind}_thawed"} and not any(c["failure"] for c in tried.values())
    notebook = run / "stages" / "06_deployment" / "notebook.ipynb"
    said = notebook.read_text(encoding="utf-8")
    assert "as it is" in said and "student" in said and notebook.stat().st_size <= 1_000_000
    with start_service(artifacts(run, "06_deployment") / "bundle") as service:
        assert len(ask(service.url, [case["ask"], dict.fromkeys(case["ask"])])["predictions"]) == 2
