"""The models of the release that SHOP_RELEASE names: the same database serves one after the other."""

import os

if os.environ["SHOP_RELEASE"] == "1":
    from .release1 import *  # noqa: F403
else:
    from .release2 import *  # noqa: F403
