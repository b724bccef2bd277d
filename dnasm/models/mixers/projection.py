"""A linear layer behind a convolution, whose rows are channels."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dnasm.models.fused import linear_of_turned, reads_only


def from_channels(linear: nn.Module, y: Float[Tensor, "b d l"]) -> Float[Tensor, "b l e"]:
    """Apply a linear layer at each position.

    Where a GPU only reads, in products that turn it. Else as one matrix whose columns are positions: a row of it moves
    as a whole, or with one sequence stays where it is, and torch lays the gradient of a factor out as the factor lies,
    which is as the convolution's gradient reads it. Otherwise it would be turned, at a seventh of the memory's speed on
    a GPU.
    """
    if reads_only(y, linear):
        assert isinstance(linear, nn.Linear)
        return linear_of_turned(linear, y)
    columns = rearrange(y, "b d l -> d (b l)")
    return rearrange(linear(columns.t()), "(b l) e -> b l e", b=y.shape[0], l=y.shape[2])
