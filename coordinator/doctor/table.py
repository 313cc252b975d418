"""A diagnosis as it is printed: a line for each check, then one for each launcher."""

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from coordinator.doctor.doctor import Diagnosis
from coordinator.doctor.finding import Launcher

NAMES: dict[Launcher, str] = {
    "local": "local processes (hearsay run)",
    "compose": "docker compose",
    "torchrun": "torchrun",
}


def diagnosis_tables(diagnosis: Diagnosis) -> list[RenderableType]:
    """Lay out all findings with their remedies, and what is left to start devices with."""
    checks = Table(title=f"{diagnosis.experiment}, {diagnosis.devices} devices", title_justify="left")
    for name in ("check", "", "found", "remedy"):
        checks.add_column(name, no_wrap=name in ("check", ""), overflow="fold")
    for finding in diagnosis.findings:
        checks.add_row(
            finding.check, Text(finding.status, finding.status), Text(finding.found), Text(finding.remedy)
        )
    launchers = Table(show_header=False, title="devices could be started by", title_justify="left")
    for launcher, misses in diagnosis.launchers.items():
        word = Text(f"not without: {', '.join(misses)}", "red") if misses else Text("yes", "green")
        launchers.add_row(NAMES[launcher], word)
    if diagnosis.devices_fit is None:
        return [checks, launchers]
    fit = f"as many as {diagnosis.devices_fit} such devices fit here, by {diagnosis.fits_by}"
    return [checks, launchers, Text(fit)]
