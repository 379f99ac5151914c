"""Recipes: options that go together, by one word. What each gains: docs/recipes.md."""

from typing import Any, Literal, get_args

from .checks import check_choice

Recipe = Literal["course", "fast", "best"]

RECIPES: dict[Recipe, dict[str, Any]] = {
    "course": {},  # the defaults
    "fast": {"freeze": "feature_encoder"},
    "best": {"num_epochs": 20, "augment": "strong", "chunk_seconds": 15.0, "random_crop": True},
}


def options_of(recipe: str) -> dict[str, Any]:
    """Options of a recipe, for `TrainConfig`.

    Raises:
        ConfigError: for a name that is none.
    """
    check_choice("recipe", recipe, get_args(Recipe))
    return RECIPES[recipe]
