"Packaging: everything is read from settings.ini, which nbdev reads too."
import shlex
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

parser = ConfigParser(delimiters=["="])  # "=" only, so that values may hold ":"
parser.read("settings.ini", encoding="utf8")
cfg = parser["DEFAULT"]
extras = {key.removesuffix("_requirements"): shlex.split(value) for key, value in cfg.items() if key.endswith("_requirements")}

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=Path("README.md").read_text(encoding="utf8") if Path("README.md").exists() else cfg["description"],
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    license="Apache-2.0",
    keywords=shlex.split(cfg["keywords"]),
    python_requires=">=" + cfg["min_python"],
    packages=find_packages(include=["mlbench", "mlbench.*"]) + ["mlbench.templates"],
    package_dir={"mlbench.templates": "templates"},
    package_data={"mlbench.templates": ["*.ipynb"], "mlbench.chain": ["assets/*"], "mlbench.widgets": ["assets/*"]},
    install_requires=shlex.split(cfg["requirements"]),
    extras_require=extras,
    entry_points={
        "console_scripts": shlex.split(cfg["console_scripts"]),
        "jupyter_client.kernel_provisioners": ["mlbench-fork=mlbench.chain.provisioner:ForkProvisioner"],
        "papermill.engine": ["mlbench=mlbench.chain.engine:MlbenchEngine"],
    },
)
