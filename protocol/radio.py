"""The air's part of an experiment: where devices stand, what lies between them, what it costs to talk.

Knobs that belong to one scheme are ignored by the others; knobs that contradict each other are refused.
Models, equations and sources are those of docs/radio.md.
"""

from math import inf
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from protocol.fading import Fading, FadingKind, survival_probability
from protocol.quantities import Each, PerDevice, least
from protocol.section import Section

Modulation = Literal["bpsk", "qpsk", "qam16", "qam64", "qam256"]

Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]

SNR_MIN_DB, SNR_MAX_DB = -100.0, 200.0

MAX_ATTEMPTS = 64

SILENCED = 1e-6
"""A truncation threshold that leaves a link less than this chance of being used silences it."""


class Analog(Section):
    """Uncoded transmission: parameters are the amplitudes of symbols, and signals add up in the air."""

    superposition: Literal["over_the_air", "orthogonal"] = "over_the_air"
    """All neighbours at once, one sum and one noise for each receiver; or one after the other."""
    gain_threshold: Annotated[float, Field(ge=0, le=100)] = 0.1
    """Power gain of the fade (mean 1) below which a sender stays silent instead of inverting it."""
    gain_error_variance: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Variance of the complex relative error of the sender's knowledge of the channel."""
    payload: Literal["models", "differences"] = "models"
    """Send parameters, or what changed since the copy that the receiver holds."""
    refresh_rounds: Annotated[int, Field(ge=0)] = 10
    """With `differences`: rounds between two error-free digital refreshes of the copies; 0: never."""


class Radio(Section):
    """The air between two devices."""

    scheme: Literal["ideal", "digital", "analog"] = "digital"
    """A perfect channel; modulated packets with bit errors; or amplitudes that add up in the air."""

    tx_power_dbm: Annotated[PerDevice, Each(ge=-60, le=60)] = 10.0
    """Transmit power of each device."""
    bandwidth_hz: Annotated[float, Field(ge=1, le=1e12)] = 1e6
    """Bandwidth of a link, which is also its symbol rate."""
    noise_density_dbm_hz: Annotated[float, Field(ge=-250, le=0)] = -174.0
    """Thermal noise power density (-174 dBm/Hz at 290 K)."""
    noise_figure_db: Annotated[float, Field(ge=0, le=50)] = 7.0
    """Noise figure of the receiver."""
    tx_antenna_gain_dbi: Annotated[float, Field(ge=-30, le=60)] = 0.0
    """Gain of the sender's antenna over an isotropic one."""
    rx_antenna_gain_dbi: Annotated[float, Field(ge=-30, le=60)] = 0.0
    """Gain of the receiver's antenna over an isotropic one."""

    snr: Literal["geometry", "given", "matrix"] = "geometry"
    """Where a link's mean SNR comes from: positions and path loss, `snr_db` for all, or `snr_file`."""
    snr_db: Annotated[float, Field(ge=SNR_MIN_DB, le=SNR_MAX_DB)] = 20.0
    """With `snr = "given"`: mean Es/N0 of every link, over its fading."""
    snr_file: str = ""
    """With `snr = "matrix"`: text file of one row per sender, the mean Es/N0 in dB at each receiver."""
    path_loss: Literal["log_distance", "free_space", "3gpp"] = "log_distance"
    """Law of the path loss: log-distance, Friis' free space, or 128.1 + 37.6 log10(d / 1 km) dB."""
    path_loss_exponent: Annotated[float, Field(ge=1, le=8)] = 3.0
    """Exponent of the log-distance law."""
    reference_loss_db: Annotated[float, Field(ge=0, le=200)] = 40.0
    """Path loss of the log-distance law at one metre (40 dB is free space at 2.4 GHz)."""
    carrier_hz: Annotated[float, Field(ge=1e6, le=1e12)] = 2.4e9
    """Carrier frequency of the free-space law."""
    shadowing_std_db: Annotated[float, Field(ge=0, le=30)] = 0.0
    """Standard deviation of log-normal shadowing, the same in both directions of a link."""

    fading: FadingKind = "rayleigh"
    """Small-scale fading of each link, of unit mean power."""
    rician_k: Annotated[float, Field(ge=0, le=1e4)] = 6.0
    """With `rician`: power of the direct path over that of the scattered ones, linear (6 is 7.8 dB)."""
    nakagami_m: Annotated[float, Field(ge=0.5, le=1e3)] = 2.0
    """With `nakagami`: shape m; 1 is Rayleigh fading, 0.5 is the worst."""
    coherence_packets: Annotated[int, Field(ge=0)] = 0
    """Packets that fit into one fade; 0: a fade lasts for whole rounds."""
    coherence_rounds: Annotated[int, Field(ge=1)] = 1
    """With `coherence_packets = 0`: rounds that one fade lasts."""
    doppler_hz: Annotated[float, Field(ge=0)] = inf
    """Doppler shift; consecutive fades correlate by J0(2 pi f T). inf: independent; 0: they never change."""

    modulation: Modulation = "qpsk"
    """Gray-mapped constellation."""
    rate: Literal["fixed", "adaptive"] = "fixed"
    """Always `modulation`, or for each frame the highest one that meets `target_packet_loss`."""
    target_packet_loss: Share = 0.1
    """With `rate = "adaptive"`: expected packet loss that a modulation may have."""
    code_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Information bits per coded bit."""
    coding_gain_db: Annotated[float, Field(ge=0, le=20)] = 0.0
    """Reduction of Eb/N0 that the code brings at equal bit-error rate."""
    packet_errors: Literal["formula", "sionna"] = "formula"
    """Bit errors by closed form, or packet errors from tables of 5G LDPC codes (extra `phy`)."""
    burst_packets: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Mean length of Gilbert-Elliott bursts of interference; 0: none."""
    burst_share: Share = 0.1
    """Share of packets that lie in a burst."""
    burst_ber: Annotated[float, Field(gt=0, le=0.5)] = 0.5
    """Bit-error probability within a burst."""
    arq: Literal["none", "selective_repeat"] = "none"
    """Whether packets that fail their CRC are asked for again."""
    max_attempts: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS)] = 4
    """With `selective_repeat`: times that a packet is sent at most."""
    bad_packets: Literal["erase", "accept"] = "erase"
    """What to do with a packet that stays bad: lose it, or take it with its flipped bits."""
    max_abs_value: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e3
    """With `bad_packets = "accept"`: numbers beyond this, or not finite, still count as erased."""
    symmetric: bool = True
    """Count a packet on a link only if it arrived in both directions, so that the mean is preserved."""

    access: Literal["tdma", "parallel"] = "tdma"
    """Slots by colouring of the graph, or orthogonal links that are on the air at the same time."""
    shared_bandwidth: bool = False
    """With `parallel`: whether `bandwidth_hz` is divided among the colours, or each link has all of it."""
    cast: Literal["broadcast", "unicast"] = "broadcast"
    """One transmission for all neighbours, at the rate of the worst; or one for each."""
    analog: Analog = Analog()

    @property
    def fade(self) -> Fading:
        """The small-scale fading with its shape parameter."""
        shapes = {"rician": self.rician_k, "nakagami": self.nakagami_m}
        return Fading(self.fading, shapes.get(self.fading, 0.0))

    @property
    def attempts(self) -> int:
        """Times that a packet is sent at most."""
        repeats = self.scheme == "digital" and self.arq == "selective_repeat"
        return self.max_attempts if repeats else 1

    @property
    def acknowledged(self) -> bool:
        """Whether receivers answer frames with bitmaps of what arrived."""
        return self.scheme == "digital" and (self.symmetric or self.attempts > 1)

    @model_validator(mode="after")
    def _what_cannot_be(self) -> Self:
        if self.snr == "matrix" and not self.snr_file:
            raise ValueError("radio.snr = matrix: needs radio.snr_file")
        if 0 < self.burst_packets < 1:
            raise ValueError(
                f"radio.burst_packets = {self.burst_packets:g}: a burst has at least one packet "
                f"(or 0: no bursts)"
            )
        if self.burst_packets and self.burst_share > self.burst_packets / (self.burst_packets + 1):
            raise ValueError(
                f"radio.burst_share = {self.burst_share:g}: bursts of {self.burst_packets:g} packets with at "
                f"least one packet between them fill at most "
                f"{self.burst_packets / (self.burst_packets + 1):.3g} of all"
            )
        if self.packet_errors == "sionna" and self.code_rate == 1:
            raise ValueError("radio.packet_errors = sionna: needs a code; set radio.code_rate below 1")
        if self.packet_errors == "sionna" and self.coding_gain_db:
            raise ValueError(
                "radio.packet_errors = sionna: its tables are those of a real code; "
                "leave radio.coding_gain_db at 0"
            )
        threshold = self.analog.gain_threshold
        if self.scheme == "analog" and survival_probability(self.fade, threshold) < SILENCED:
            raise ValueError(
                f"radio.analog.gain_threshold = {threshold:g}: silences every link; with "
                f"radio.fading = {self.fading} the power gain has mean 1 and exceeds it with a "
                f"probability below {SILENCED:g}"
            )
        if self.scheme == "analog" and self.access == "parallel" and self.shared_bandwidth:
            raise ValueError(
                "radio.shared_bandwidth: analog sums are taken in slots or in the whole band of each receiver"
            )
        if self.coherence_packets and self.coherence_rounds > 1:
            raise ValueError(
                f"radio.coherence_rounds = {self.coherence_rounds}: a fade lasts for packets or for rounds; "
                f"set radio.coherence_packets = 0"
            )
        return self


class Mobility(Section):
    """How devices move; the graph stays, its links become better and worse."""

    kind: Literal["none", "random_waypoint"] = "none"
    """Devices stand still, or walk to random points of the area one after the other."""
    speed_min_m_s: Annotated[float, Field(gt=0, le=1000)] = 0.5
    """Slowest walk."""
    speed_max_m_s: Annotated[float, Field(gt=0, le=1000)] = 2.0
    """Fastest walk."""
    pause_s: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Rest at each point."""
    round_s: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Seconds of movement between two rounds."""

    @model_validator(mode="after")
    def _speeds_in_order(self) -> Self:
        if self.speed_min_m_s > self.speed_max_m_s:
            raise ValueError(
                f"mobility.speed_min_m_s = {self.speed_min_m_s:g}: must be at most "
                f"mobility.speed_max_m_s = {self.speed_max_m_s:g}"
            )
        return self


class Device(Section):
    """What computing and talking cost each device; the defaults are a small single-board computer."""

    cpu_hz: Annotated[PerDevice, Each(ge=1, le=1e12)] = 1e9
    """Clock frequency of the processor."""
    frequency: Literal["fixed", "just_in_time"] = "fixed"
    """Always `cpu_hz`, or f = tau c b / T: as slow as tau local rounds of b samples may be in the T seconds
    there are for them. A cycle costs kappa f^2, so that saves a factor (f / `cpu_hz`)^2 of their joules."""
    cpu_min_hz: Annotated[float, Field(ge=1, le=1e12)] = 1e8
    """With `frequency = "just_in_time"`: slowest clock frequency."""
    cycles_per_sample: Annotated[PerDevice, Each(ge=0, le=1e15)] = 2e6
    """Processor cycles that one sample takes in one local round."""
    switched_capacitance: Annotated[PerDevice, Each(ge=0, le=1e-15)] = 1e-28
    """Effective switched capacitance kappa: a cycle at frequency f costs kappa f^2 joules."""
    compute: Literal["modelled", "measured"] = "modelled"
    """Computing time by cycles over frequency, or the processor time that this host really took."""
    rx_power_w: Annotated[float, Field(ge=0, le=1000)] = 0.05
    """Power drawn while receiving, on top of `idle_power_w`."""
    idle_power_w: Annotated[float, Field(ge=0, le=1000)] = 0.01
    """Power drawn all the time; computing, sending and receiving come on top."""

    @model_validator(mode="after")
    def _frequency_that_cannot_be(self) -> Self:
        if self.frequency == "fixed":
            return self
        if self.cpu_min_hz > least(self.cpu_hz):
            raise ValueError(
                f"device.cpu_min_hz = {self.cpu_min_hz:g}: must be at most {least(self.cpu_hz):g} Hz, the "
                f"least device.cpu_hz"
            )
        if self.compute == "measured":
            raise ValueError(
                "device.frequency = just_in_time: needs to know beforehand how many cycles computing takes; "
                "set device.compute = modelled"
            )
        return self
