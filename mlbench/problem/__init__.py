"The problem: what is to be found out, how it is measured, and when the answer is good enough."

from mlbench.core.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Problem": "mlbench.problem.problem",
        "Target": "mlbench.problem.target",
        "make_target": "mlbench.problem.target",
        "Metric": "mlbench.problem.metrics",
        "metric": "mlbench.problem.metrics",
        "metrics_for": "mlbench.problem.metrics",
        "default_metric": "mlbench.problem.metrics",
        "greater_is_better": "mlbench.problem.metrics",
        "evaluate_metric": "mlbench.problem.metrics",
        "evaluate_metrics": "mlbench.problem.metrics",
        "Criterion": "mlbench.problem.criteria",
        "Verdict": "mlbench.problem.criteria",
        "parse_criterion": "mlbench.problem.criteria",
        "check_frame": "mlbench.problem.checks",
        "Proposal": "mlbench.problem.proposal",
        "propose": "mlbench.problem.proposal",
        "problem_yaml": "mlbench.problem.proposal",
        "cost_matrix": "mlbench.problem.costs",
        "cost_of": "mlbench.problem.costs",
        "decide": "mlbench.problem.costs",
        "least_cost": "mlbench.problem.costs",
        "Span": "mlbench.problem.spans",
        "span_f1": "mlbench.problem.spans",
        "span_report": "mlbench.problem.spans",
        "spans_of": "mlbench.problem.spans",
    },
)
