"""The panel of a session in a notebook: buttons, the rate, and a picture that is kept up to date."""

from __future__ import annotations

import html
import math
import threading

import ipywidgets as widgets

from experiments.explore.picture import picture
from experiments.explore.session import Session
from experiments.explore.state import State

FOLLOW_S = 0.5


class View:
    """Shows `session` and passes on its buttons; a notebook displays `widget`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._following: threading.Thread | None = None
        self._shown = ("", 0)
        self._start = widgets.Button(description="Start", icon="play", button_style="primary")
        self._stop = widgets.Button(description="Stop", icon="stop")
        self._burst = widgets.Button(
            description="Burst", icon="bolt", tooltip="ten times as many reactions for five seconds"
        )
        rate_per_s = session.state.rate_per_s
        self._rate = widgets.FloatLogSlider(
            value=rate_per_s,
            base=10,
            min=min(0.0, math.log10(rate_per_s)),
            max=max(3.0, math.log10(rate_per_s)),
            step=0.05,
            description="reactions/s",
            readout_format=",.0f",
            layout=widgets.Layout(width="340px"),
        )
        self._status = widgets.HTML()
        self._picture = widgets.HTML()
        self._start.on_click(lambda _: self.start())
        self._stop.on_click(lambda _: session.stop())
        self._burst.on_click(lambda _: session.burst())
        self._rate.observe(lambda change: session.set_rate(change["new"]), "value")
        buttons = widgets.HBox([self._start, self._stop, self._burst, self._rate], layout={"flex_flow": "row wrap"})
        self.widget = widgets.VBox([buttons, self._status, self._picture])
        self._update(session.state)

    def start(self) -> None:
        """Start the session and show it until it is over; return at once."""
        self._session.start()
        self._follow()

    def watch(self, watch_s: float) -> State:
        """Let the session run for `watch_s` seconds and show it; return how it ended (see Session.end_after)."""
        self.start()
        try:
            return self._session.end_after(watch_s)
        finally:
            if self._following is not None:
                self._following.join()

    def _follow(self) -> None:
        if self._following is None or not self._following.is_alive():
            self._following = threading.Thread(target=self._until_over, name="following", daemon=True)
            self._following.start()

    def _until_over(self) -> None:
        pause = threading.Event()
        while not (state := self._session.state).over:
            self._update(state)
            pause.wait(FOLLOW_S)
        self._update(state)

    def _update(self, state: State) -> None:
        self._start.disabled = not state.over
        self._stop.disabled = state.phase not in ("starting", "running")
        self._burst.disabled = state.phase != "running" or state.bursting
        self._status.value = status(state)
        # A picture takes a tenth of a second of this process: one per window and one per phase.
        shown = (state.phase, state.arrived)
        if shown != self._shown:
            self._shown = shown
            self._picture.value = picture(state)


def status(state: State) -> str:
    """Return the state in one line of HTML."""
    burst = " Burst!" if state.bursting else ""
    words = {
        "idle": "Ready to start.",
        "starting": "Starting the chain …",
        "running": f"{state.sent:,} reactions sent, {state.rate_per_s:,.0f} per second now.{burst}",
        "draining": f"Stopping: waiting for {max(0, state.accepted - state.counted):,} more reactions …",
        "ended": f"Stopped: {state.sent:,} sent, {state.accepted:,} accepted, {state.counted:,} counted and arrived.",
        "failed": f"Failed: {state.error}",
    }[state.phase]
    return f"<p role='status'>{html.escape(words)}</p>"
