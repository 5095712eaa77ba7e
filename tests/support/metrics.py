"""What /metrics says."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from .servers import Server


class Figures:
    """What /metrics said once."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))

    def get(self, name: str, **labels: str) -> float:
        """The sum of the samples of `backend_<name>` with these labels; 0 if there is none."""
        return sum(
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == f"backend_{name}" and labels.items() <= sample.labels.items()
        )

    def labels(self, name: str, label: str) -> set[str]:
        """The values that a label has in the samples of `backend_<name>`."""
        return {
            sample.labels[label]
            for family in self.families
            for sample in family.samples
            if sample.name == f"backend_{name}"
        }


def told_by(server: Server) -> Figures:
    """What /metrics of a server says now."""
    answer = server.ask("GET", "/metrics")
    assert answer.status == 200
    return Figures(answer.content.decode())
