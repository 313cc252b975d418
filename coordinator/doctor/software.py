"""Is what a run needs installed: Python, packages, a device that answers, data, torchrun."""

from coordinator.doctor.facts import Facts, Folder, Package, Software
from coordinator.doctor.finding import HERE, Finding, size
from protocol.config import Experiment
from protocol.messages import Survey

UNPACKED = 2
"""Files are downloaded, and then unpacked once more."""


def python(software: Software) -> Finding:
    """Hold the interpreter against pyproject.toml."""
    found = f"{software.python}, {software.python_wanted} wanted"
    if not software.python_suits:
        remedy = "make the virtual environment with a newer Python"
        return Finding(check="python", status="red", found=found, remedy=remedy, stops=HERE)
    return Finding(check="python", status="green", found=found)


def packages(software: Software, experiment: Experiment) -> Finding:
    """Hold packages against pyproject.toml; those of the extra `phy` only where they are asked for."""
    extras = {"", "node"} | ({"phy"} if experiment.radio.packet_errors == "sionna" else set())
    wanted = [package for package in software.packages if package.extra in extras]
    bad = [package for package in wanted if not package.suits]
    if not bad:
        return Finding(check="packages", status="green", found=f"all {len(wanted)} there and new enough")
    missing = sorted({package.extra for package in bad} - {""})
    return Finding(
        check="packages",
        status="red",
        found=", ".join(map(_what_is_wrong, bad)),
        remedy=f"pip install 'hearsay{'[' + ','.join(missing) + ']' if missing else ''}'",
        stops=HERE,
    )


def device(survey: Survey | None, fault: str) -> Finding:
    """Say whether a device can be started at all."""
    if survey is None:
        remedy = "see packages; python -m node --survey FILE says more"
        return Finding(check="device", status="red", found=f"no answer: {fault}", remedy=remedy, stops=HERE)
    found = f"torch {survey.torch}, {survey.num_parameters:,} parameters"
    return Finding(check="device", status="green", found=found)


def data(experiment: Experiment, survey: Survey | None, folder: Folder | None) -> Finding:
    """Say where the data are, what would be downloaded, or which file is broken."""
    name = experiment.data.dataset
    if not experiment.data.is_files:
        source = "made from the seed" if name == "synthetic" else "comes with scikit-learn"
        return Finding(check="data", status="green", found=f"{name}: {source}")
    if survey is None or folder is None:
        return Finding(check="data", status="yellow", found=f"{name}: not known", remedy="see device")
    if survey.data_fault:
        remedy = "remove that file; python -m node --fetch FILE gets the set again"
        return Finding(check="data", status="red", found=survey.data_fault, remedy=remedy, stops=HERE)
    if not survey.data_missing:
        return Finding(
            check="data", status="green", found=f"{name}: {survey.data_found}, in {survey.data_folder}"
        )
    found = f"{name}: not in {folder.path}; would be downloaded: {', '.join(survey.data_missing)}"
    need = UNPACKED * survey.data_bytes
    if not folder.writable or folder.free_bytes < need:
        return Finding(
            check="data",
            status="red",
            found=found,
            remedy=f"set HEARSAY_DATA to a folder that holds the files, or can: {size(need)} are needed",
            stops=HERE,
        )
    remedy = "python -m node --fetch FILE downloads it now; or put the files there (docs/data.md)"
    return Finding(check="data", status="yellow", found=found, remedy=remedy)


def gpus(facts: Facts, gpu_bytes: int | None) -> Finding:
    """Say what GPUs there are, whether torch can use them, and how many devices their memory holds."""
    graphics, survey = facts.graphics, facts.survey
    if graphics.fault:
        remedy = "load or update the NVIDIA driver; without it devices compute on processors"
        return Finding(check="gpus", status="yellow", found=f"nvidia-smi: {graphics.fault}", remedy=remedy)
    if not graphics.gpus:
        return Finding(check="gpus", status="green", found="none; devices compute on processors")
    names = ", ".join(f"{gpu.name} ({size(gpu.free_bytes)} free)" for gpu in graphics.gpus)
    found = f"driver {graphics.driver}: {names}"
    fits = sum(gpu.free_bytes // gpu_bytes for gpu in graphics.gpus) if gpu_bytes else None
    if fits is not None:
        found += f", for {fits} devices"
    if survey is None:
        return Finding(check="gpus", status="yellow", found=found, remedy="see device", fits=fits)
    if not survey.torch_cuda:
        remedy = f"torch {survey.torch} is built without CUDA: install a build with it to use them"
    elif not survey.num_gpus:
        remedy = (
            f"torch's CUDA {survey.torch_cuda} finds none: update the driver, or take an older build of torch"
        )
    else:
        return Finding(check="gpus", status="green", found=found, fits=fits)
    return Finding(check="gpus", status="yellow", found=found, remedy=remedy, fits=fits)


def torchrun(software: Software) -> Finding:
    """Say where torchrun is, which comes with torch."""
    if not software.torchrun:
        remedy = "pip install 'hearsay[node]', and have its scripts in PATH"
        return Finding(
            check="torchrun", status="red", found="not in PATH", remedy=remedy, stops=("torchrun",)
        )
    return Finding(check="torchrun", status="green", found=software.torchrun)


def _what_is_wrong(package: Package) -> str:
    have = f"{package.found} is there" if package.found else "not installed"
    return f"{package.name}{package.wanted}: {have}"
