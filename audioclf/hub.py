"""`push`: a checkpoint to a repository of the Hugging Face hub."""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from .card import CARD_FILE, CONFUSION_FILE, licensed, public_metadata, write_card
from .checkpoint import best_of
from .errors import CheckpointError, ConfigError, HubError
from .export import METADATA_FILE

REPO_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
"""What a checkpoint needs; the training state of `last` stays where it is."""


def push(
    checkpoint: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    license: str | None = None,
    token: str | None = None,
    message: str = "Upload by audioclf",
) -> str:
    """Uploads a checkpoint with its card; the repository is made if need be, and keeps its earlier commits.

    A README.md that lies in the folder goes as it is, but for the licence, so that what you wrote in it stays; without
    one a card is made.
    What concerns only this machine, such as folders, is left out.

    Args:
        checkpoint: A checkpoint's folder, or a run's, whose best it then is.
        repo_id: `user/name`, or `organisation/name`.
        private: Whether only its owner sees a repository that is made.
        license: For the card, as the hub calls it, such as `apache-2.0`.
        token: What the hub knows you by; that of `hf auth login` or HF_TOKEN when not given.
        message: Of the commit.

    Returns:
        The address of the repository.

    Raises:
        ConfigError: for a name that cannot be one, or without a token.
        CheckpointError: for a folder that holds no checkpoint.
        HubError: when the hub refuses or cannot be reached; the folder stays as it is.

    Example:
        >>> push("runs/first", "user/distilhubert-gtzan", private=True)
    """
    check_repository(repo_id, token)
    folder = checkpoint_folder(checkpoint)
    api = HfApi(token=token)
    try:
        with tempfile.TemporaryDirectory() as place:
            operations = _operations(folder, Path(place), repo_id, license)
            address = api.create_repo(repo_id, private=private, exist_ok=True)
            api.create_commit(repo_id, operations, commit_message=message)
    except Exception as error:  # what a network client may raise has no common base
        raise HubError(f"{repo_id!r} could not be pushed: {_reason(error, repo_id)}") from error
    return str(address)


def check_repository(repo_id: str, token: str | None = None) -> None:
    """Refuses what cannot be pushed to, without asking the hub.

    Raises:
        ConfigError: for a name that cannot be one, or without a token.
    """
    if not REPO_ID.fullmatch(repo_id) or len(repo_id.split("/")[1]) > 96 or ".." in repo_id or "--" in repo_id:
        raise ConfigError(f"{repo_id!r} is no repository: give it as user/name, of letters, digits, '-', '_' and '.'.")
    if token is None and get_token() is None:
        raise ConfigError(
            "The hub does not know who you are: log in with 'hf auth login', or set the environment variable HF_TOKEN "
            "to a token that may write (huggingface.co/settings/tokens)."
        )


def checkpoint_folder(checkpoint: str | Path) -> Path:
    """The checkpoint's folder, of a run the best one.

    Raises:
        CheckpointError: when there is none.
    """
    folder = best_of(checkpoint)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{str(checkpoint)!r} is no checkpoint: it lacks {missing[0]}; name a run or its best.")
    return folder


def _operations(folder: Path, place: Path, repo_id: str, license: str | None) -> list[CommitOperationAdd]:
    """What is uploaded; what differs from the folder's own files is made in `place`."""
    metadata = public_metadata(folder)
    content: dict[str, Any] = {name: str(folder / name) for name in FILES}
    if metadata:
        content[METADATA_FILE] = json.dumps(metadata, indent=2).encode()
    if (folder / CARD_FILE).is_file():
        content |= {name: str(folder / name) for name in (CARD_FILE, CONFUSION_FILE) if (folder / name).is_file()}
        if license is not None:
            content[CARD_FILE] = licensed(folder / CARD_FILE, license).encode()
    else:
        for name in ("config.json", METADATA_FILE):
            if (folder / name).is_file():
                shutil.copy(folder / name, place)
        write_card(place, repo=repo_id, license=license)
        content[CARD_FILE] = str(place / CARD_FILE)
    return [CommitOperationAdd(name, source) for name, source in content.items()]


def _reason(error: Exception, repo_id: str) -> str:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None
    if status in (401, 403) or isinstance(error, LocalTokenNotFoundError):
        owner = repo_id.split("/")[0]
        return f"the hub says {status}; the token must be allowed to write to {owner}'s repositories."
    if status is not None and status >= 500:
        return f"the hub says {status}; try again later, what has arrived is not sent again."
    said = " ".join(str(error).split()) or type(error).__name__
    return f"{said[:300]} (check the network, and try again)."
