"""The sections of an experiment that say what is learned: the data, the network, and how it is trained."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from protocol.section import Section

MAX_PILOT_ROUNDS = 10_000


class Data(Section):
    """What is learned, and how it is split over the devices."""

    dataset: Literal["digits", "synthetic", "fashion_mnist", "cifar10"] = "digits"
    """scikit-learn's 8x8 digits (real, offline), Gaussian classes of the seed, or files: see docs/data.md."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """With `digits` and `synthetic`: share of the samples held back as the common test set. The other
    image sets come with a test set of their own."""
    max_samples: Annotated[int, Field(ge=0)] = 0
    """Training samples of all devices together, drawn by the seed where there are more; 0: all there are."""
    max_test_samples: Annotated[int, Field(ge=0)] = 0
    """The same for the common test set."""
    partition: Literal["iid", "dirichlet", "shards", "quantity"] = "iid"
    """How training samples are split: evenly, by label skew, by label shards, or by unequal amounts."""
    dirichlet_alpha: Annotated[float, Field(gt=0, le=1e6)] = 0.5
    """Concentration of the Dirichlet draws of `dirichlet` and `quantity`; smaller is more uneven."""
    shards_per_device: Annotated[int, Field(ge=1)] = 2
    """With `shards`: pieces of the label-sorted data that each device gets."""
    min_samples_per_device: Annotated[int, Field(ge=1)] = 8
    """No device gets fewer training samples than this."""
    num_samples: Annotated[int, Field(ge=10, le=10_000_000)] = 2000
    """With `synthetic`: samples in all."""
    num_features: Annotated[int, Field(ge=1, le=100_000)] = 64
    """With `synthetic`: length of one sample."""
    num_classes: Annotated[int, Field(ge=2, le=1000)] = 10
    """With `synthetic`: number of labels."""

    @property
    def is_files(self) -> bool:
        """Whether it is read from files, which may have to be downloaded."""
        return self.dataset in ("fashion_mnist", "cifar10")

    @property
    def image_side(self) -> int | None:
        """Pixels of an image's side; None where samples are no images."""
        return {"digits": 8, "fashion_mnist": 28, "cifar10": 32}.get(self.dataset)


class Model(Section):
    """The network every device trains."""

    kind: Literal["cnn", "mlp", "resnet20", "vit"] = "cnn"
    """Convolution blocks and a linear layer, fully connected layers, ResNet-20, or a vision transformer."""
    channels: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1)] = (16, 32)
    """With `cnn`: channels after each convolution block; each block but the first halves the image."""
    hidden: tuple[Annotated[int, Field(ge=1, le=100_000)], ...] = (64,)
    """With `mlp`: width of each hidden layer; none at all, `[]`, is softmax regression."""
    norm: Literal["group", "none"] = "group"
    """GroupNorm after each layer, or nothing. BatchNorm has state that gossip would have to average. A `vit`
    has LayerNorm in any case."""
    patch_size: Annotated[int, Field(ge=1, le=1024)] = 4
    """With `vit`: side in pixels of the square patches that are its tokens; divides the image's side."""
    width: Annotated[int, Field(ge=1, le=4096)] = 128
    """With `vit`: numbers that a token is."""
    depth: Annotated[int, Field(ge=1, le=100)] = 6
    """With `vit`: number of blocks."""
    heads: Annotated[int, Field(ge=1, le=256)] = 4
    """With `vit`: attention heads of a block; a divisor of the width."""


def _number_or_word(value: object) -> str:
    return "word" if isinstance(value, str) else "number"


LocalRounds: TypeAlias = Annotated[
    Annotated[int, Field(ge=0, le=1_000_000), Tag("number")] | Annotated[Literal["adaptive"], Tag("word")],
    Discriminator(_number_or_word),  # so that a fault is one of a number or of a word, not both
]


class Training(Section):
    """Local steps between two exchanges."""

    local_rounds: LocalRounds = 5
    """Local rounds (minibatch steps) per device and round; or each device's own choice within its budgets."""
    averaging: Literal["normalised", "plain"] = "normalised"
    """With `adaptive`: mix what each local round brought on average, or all that a device has learned."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Samples per step; a device with fewer uses all it has."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """Plain SGD, or AdamW, whose moments stay on the device: only parameters are exchanged."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    """Step size; AdamW wants a far smaller one than SGD, such as 0.001."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """With `sgd`: momentum; it stays on the device."""
    adamw_betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.999,
    )
    """With `adamw`: how much of its first and second moment each step keeps."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """With `sgd`: L2 penalty, weight_decay * x is added to the gradient. With `adamw`: decoupled, a step
    takes learning_rate * weight_decay * x off x."""
    pilot_rounds: Annotated[int, Field(ge=0, le=MAX_PILOT_ROUNDS)] = 0
    """First rounds in which devices also measure what the bounds need, by three more gradients each; see
    `hearsay plan --from`."""
    evaluate_every: Annotated[int, Field(ge=0)] = 1
    """Rounds between two evaluations on the test set; 0 evaluates only after the last round."""

    @property
    def is_adaptive(self) -> bool:
        """Whether devices decide how many local rounds they do."""
        return self.local_rounds == "adaptive"

    @property
    def nominal_local_rounds(self) -> int:
        """Local rounds that a round is planned with: what is set, or one where devices decide."""
        return 1 if self.local_rounds == "adaptive" else self.local_rounds
