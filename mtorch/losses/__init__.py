"""Loss functions: value and gradient together."""

from mtorch.losses.base import Loss as Loss
from mtorch.losses.base import LossFunction as LossFunction
from mtorch.losses.bce import BCELoss as BCELoss
from mtorch.losses.bce_with_logits import BCEWithLogitsLoss as BCEWithLogitsLoss
from mtorch.losses.cosine_embedding import CosineEmbeddingLoss as CosineEmbeddingLoss
from mtorch.losses.cross_entropy import CrossEntropyLoss as CrossEntropyLoss
from mtorch.losses.huber import HuberLoss as HuberLoss
from mtorch.losses.kl_div import KLDivLoss as KLDivLoss
from mtorch.losses.l1 import L1Loss as L1Loss
from mtorch.losses.mse import MSELoss as MSELoss
from mtorch.losses.nll import NLLLoss as NLLLoss
from mtorch.losses.square import SquareLoss as SquareLoss
from mtorch.losses.triplet_margin import TripletMarginLoss as TripletMarginLoss

__all__ = [name for name, item in globals().items() if isinstance(item, type)]
