"""What training minimises: cross entropy with the truth, and with what a teacher says."""

from torch import Tensor
from torch.nn import functional as F

from regnet.training.recipe import Loss


def distillation_loss(
    logits: Tensor,
    targets: Tensor,
    soft: Tensor | None,
    *,
    loss: Loss,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return the mean loss of a batch, a scalar in float32 also where the logits are not.

    `logits` are (N, classes); `targets` classes (N,), or their shares (N, classes) after mixing;
    `soft` the teacher's probabilities (N, classes) at `loss.temperature`, None without one.
    It is (1 - teacher) * cross entropy + teacher * T^2 * KL(teacher || student at T) (Hinton et
    al. 2015, arXiv 1503.02531). `class_weights` (classes,) are for the truth, not for the teacher;
    the sum is divided by N, not by the weights, so that parts of a batch average to the whole.
    """
    logits = logits.float()
    truth = _cross_entropy(logits, targets, loss.label_smoothing, class_weights)
    if soft is None:
        return truth
    return (1 - loss.teacher) * truth + loss.teacher * _divergence(logits, soft, loss.temperature)


def _cross_entropy(
    logits: Tensor, targets: Tensor, smoothing: float, class_weights: Tensor | None
) -> Tensor:
    shares = targets if targets.ndim == 2 else F.one_hot(targets, logits.shape[1])
    return F.cross_entropy(logits, shares.float(), weight=class_weights, label_smoothing=smoothing)


def _divergence(logits: Tensor, soft: Tensor, temperature: float) -> Tensor:
    """Return T^2 * KL(teacher || student); the factor keeps the size of its gradient at any T."""
    student = F.log_softmax(logits / temperature, dim=1)
    return temperature**2 * F.kl_div(student, soft.float(), reduction="batchmean")
