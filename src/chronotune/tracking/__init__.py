"""The MLflow mirror of a sweep: a strictly read-only reading of its study, off the driver's path.

In reading order: `content` says what MLflow should hold (pure), `runs` brings MLflow there (the only importer of
mlflow), `registry` gives it a winner that ships, `mirroring` does so from a background thread, `address` says where.
"""

from chronotune.tracking.address import resolve_uri
from chronotune.tracking.mirroring import LAST_SECONDS, Mirror, MirrorReport, mirror, mirror_again

__all__ = ["LAST_SECONDS", "Mirror", "MirrorReport", "mirror", "mirror_again", "resolve_uri"]
