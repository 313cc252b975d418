"""Is there room for the devices: memory, cores, open files, threads, /dev/shm, disk, ports."""

from coordinator.doctor.facts import Folder, Machine
from coordinator.doctor.finding import HERE, LAUNCHERS, MIB, Finding, size
from coordinator.footprint import Footprint
from protocol.config import Experiment

DEVICES_PER_CORE = 32
"""More have not been tried."""
DOUBT = 2
"""The model of memory and disk is held to this factor by `tests/test_footprint.py`."""
OTHER_THREADS = 32
"""Of the coordinator, the fork server, and what libraries start for themselves."""
NCCL_SHM_BYTES = 64 * MIB
"""What a container has unless it is given more; NCCL asks for more with several GPUs."""
UNKNOWN = "not known, since no device could be asked"


def memory(machine: Machine, run: Footprint) -> Finding:
    """Hold what a run takes at its height against what can be had."""
    if run.device_bytes is None:
        return Finding(check="memory", status="yellow", found=UNKNOWN, remedy="see device")
    need, there = run.memory_bytes, machine.memory_bytes
    fits = max(0, int((there - run.shared_bytes) / run.mean_device_bytes))
    found = (
        f"{run.devices} devices take about {size(need)}, of which {size(run.shared_bytes)} once; "
        f"{machine.memory_by} leaves {size(there)}, for {fits}"
    )
    more = "give the container more memory" if machine.memory_by != "the machine" else "end other programs"
    fewer = f", or use at most {fits} devices" if fits else ""
    if need > there:
        return Finding(check="memory", status="red", found=found, remedy=more + fewer, stops=HERE, fits=fits)
    if need * DOUBT > there:
        remedy = f"watch it: the number is good to a factor of {DOUBT}; {more}"
        return Finding(check="memory", status="yellow", found=found, remedy=remedy, fits=fits)
    return Finding(check="memory", status="green", found=found, fits=fits)


def cores(machine: Machine, experiment: Experiment) -> Finding:
    """Say how many devices share a core: that takes longer, and no clock but a virtual one forgives it."""
    per_core = experiment.devices * experiment.runtime.torch_threads / machine.cores
    found = f"{machine.cores:g} by {machine.cores_by}, {per_core:.3g} threads of devices for each"
    if per_core > 1 and experiment.runtime.clock != "virtual":
        remedy = (
            f"runtime.clock = {experiment.runtime.clock} wants a core for each; use virtual, or fewer devices"
        )
        return Finding(check="cores", status="yellow", found=found, remedy=remedy)
    if per_core > DEVICES_PER_CORE:
        remedy = (
            "rounds take long: raise runtime.liveness_wall_s and runtime.join_wall_s, or use fewer devices"
        )
        return Finding(check="cores", status="yellow", found=found, remedy=remedy)
    return Finding(check="cores", status="green", found=found)


def descriptors(machine: Machine, run: Footprint) -> Finding:
    """Hold the files and sockets that processes open against their limit, which a run raises by itself."""
    need = max(run.neighbour_descriptors, run.descriptors + round(run.devices * run.descriptors_per_device))
    if machine.descriptors is None:
        return Finding(check="descriptors", status="green", found=f"{need} needed, no limit")
    fits = max(0, int((machine.descriptors - run.descriptors) / run.descriptors_per_device))
    found = f"one process opens about {need}, and may open {machine.descriptors}, for {fits} devices"
    if need > machine.descriptors:
        remedy = f"raise the hard limit to {need}: ulimit -Hn, LimitNOFILE= or docker run --ulimit nofile="
        return Finding(check="descriptors", status="red", found=found, remedy=remedy, stops=HERE, fits=fits)
    return Finding(check="descriptors", status="green", found=found, fits=fits)


def processes(machine: Machine, run: Footprint) -> Finding:
    """Say whether devices can be forked, and hold their threads against the limit, which counts threads."""
    if not machine.fork_server:
        found = "this system cannot fork processes from a server"
        return Finding(check="processes", status="red", found=found, remedy="use Linux", stops=("local",))
    need = OTHER_THREADS + run.num_processes * run.threads_per_process
    if machine.threads is None:
        return Finding(check="processes", status="green", found=f"{need} threads needed, no limit")
    each = run.threads_per_process * run.num_processes / run.devices
    fits = max(0, int((machine.threads - OTHER_THREADS) / each))
    found = f"about {need} threads, and {machine.threads} may be started, for {fits} devices"
    if need > machine.threads:
        remedy = f"raise the limit to {need}: ulimit -u, TasksMax= or docker run --pids-limit"
        return Finding(check="processes", status="red", found=found, remedy=remedy, stops=HERE, fits=fits)
    return Finding(check="processes", status="green", found=found, fits=fits)


def shared_memory(machine: Machine, num_gpus: int) -> Finding:
    """Look at /dev/shm, which only NCCL uses."""
    found = f"{size(machine.shm_bytes)} in /dev/shm" if machine.shm_bytes else "there is no /dev/shm"
    if num_gpus < 2:
        found += "; nothing uses it without several GPUs"
    elif machine.shm_bytes <= NCCL_SHM_BYTES:
        remedy = "NCCL needs more between GPUs: docker run --shm-size 1g, shm_size: in a compose file"
        return Finding(check="shm", status="yellow", found=found, remedy=remedy)
    return Finding(check="shm", status="green", found=found)


def disk(folder: Folder, run: Footprint) -> Finding:
    """Hold what a run leaves behind against what is free where it would go."""
    found = f"{size(folder.free_bytes)} free in {folder.there}"
    if not folder.writable:
        return Finding(
            check="disk",
            status="red",
            found=f"{folder.there} cannot be written",
            remedy="name a folder that can with --out DIR, or work in one",
            stops=LAUNCHERS,
        )
    if folder.taken:
        return Finding(
            check="disk",
            status="red",
            found=f"{folder.path} is not empty",
            remedy="name a new folder with --out DIR",
            stops=LAUNCHERS,
        )
    if run.disk_bytes is None:
        return Finding(check="disk", status="yellow", found=f"{found}; need {UNKNOWN}", remedy="see device")
    found += f", a run leaves about {size(run.disk_bytes)}"
    if run.disk_bytes * DOUBT > folder.free_bytes:
        short = run.disk_bytes > folder.free_bytes
        return Finding(
            check="disk",
            status="red" if short else "yellow",
            found=found,
            remedy="make room there, or name another folder with --out DIR",
            stops=LAUNCHERS if short else (),
        )
    return Finding(check="disk", status="green", found=found)


def ports(machine: Machine, experiment: Experiment) -> Finding:
    """Say whether devices can listen, and whether somebody has the ports that launchers choose."""
    if not machine.loopback:
        found, remedy = (
            "nothing can listen on 127.0.0.1",
            "bring the loopback interface up: ip link set lo up",
        )
        return Finding(check="ports", status="red", found=found, remedy=remedy, stops=HERE)
    fits = machine.num_ports - 1  # the coordinator has one, too
    found = f"{machine.num_ports} for whoever does not choose, one for each device"
    if experiment.devices > fits and experiment.transport.kind != "memory":
        remedy = "widen net.ipv4.ip_local_port_range (sysctl)"
        return Finding(check="ports", status="red", found=found, remedy=remedy, stops=HERE, fits=fits)
    if machine.busy_ports:
        busy = ", ".join(map(str, machine.busy_ports))
        return Finding(
            check="ports",
            status="yellow",
            found=f"{found}; somebody listens on {busy}",
            remedy="choose another where you would publish a coordinator (5555) or call torchrun (29500)",
            fits=fits,
        )
    return Finding(check="ports", status="green", found=found, fits=fits)
