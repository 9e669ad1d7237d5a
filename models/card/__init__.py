"""The card of a bundle: written by the tools, from what they measured."""

from firstread.models.card.description import Description, description_of, description_of_draft
from firstread.models.card.training import in_bundle, training_summary
from firstread.models.card.writing import write_card

__all__ = ["Description", "description_of", "description_of_draft", "in_bundle", "training_summary", "write_card"]
