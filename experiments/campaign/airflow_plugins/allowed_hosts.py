"""A plugin for Airflow: its server answers requests for this machine's own address alone.

Every user of this Airflow is an admin. A page whose name leads to this machine (DNS rebinding) would be one as well.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin
from starlette.middleware.trustedhost import TrustedHostMiddleware

HOSTS = ["127.0.0.1", "localhost"]


class AllowedHosts(AirflowPlugin):
    """Read by Airflow from its folder of plugins."""

    name = "emostream_allowed_hosts"
    fastapi_root_middlewares: list[Any] = [  # noqa: RUF012 - as the base class declares it
        {
            "name": "allowed hosts",
            "middleware": TrustedHostMiddleware,
            "args": [],
            "kwargs": {"allowed_hosts": HOSTS, "www_redirect": False},
        }
    ]
