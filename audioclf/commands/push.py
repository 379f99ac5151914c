"""`audioclf push`."""

from typing import Annotated

import tyro
from tyro.conf import Positional


def push(
    checkpoint: Annotated[Positional[str], tyro.conf.arg(metavar="CHECKPOINT")],
    repo_id: Annotated[Positional[str], tyro.conf.arg(metavar="USER/NAME")],
    private: bool = False,
    license: str | None = None,
    message: str = "Upload by audioclf",
) -> int:
    """Upload a checkpoint and its model card to the Hugging Face hub.

    Args:
        checkpoint: A checkpoint's folder, or a run's, whose best it then is.
        repo_id: The repository, which is made if need be.
        private: Let only its owner see a repository that is made.
        license: For the card, as the hub calls it, such as apache-2.0.
        message: Of the commit.
    """
    from ..hub import push as upload

    print(upload(checkpoint, repo_id, private=private, license=license, message=message))
    return 0
