"""Parts that are made when they are first needed, even before the start."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from flask import Blueprint

from ..config.defaults import Settings
from ..config.in_force import ConfigInForce
from ..events.entry import EventQueue
from ..events.intake import Intake
from ..events.memory import MemoryQueue
from ..types import SlaveMaster
from ..web.access import Access
from ..web.flask_app import WebApp
from ..web.views import Views


class OnDemand:
    """The queue and what leads to it, and the Flask app.

    views: returns what the routes call.
    """

    def __init__(
        self,
        master: SlaveMaster,
        blueprint: Blueprint,
        config: ConfigInForce,
        views: Callable[[], Views],
    ) -> None:
        self.lock = threading.RLock()
        """Guards what is made when first needed."""
        self._master = master
        self._blueprint = blueprint
        self._config = config
        self._views = views
        self._queue: EventQueue | None = None
        self._intake: Intake | None = None
        self._web: WebApp | None = None
        self._access: Access | None = None

    @property
    def queue(self) -> EventQueue:
        """The event queue: until the start, one in memory."""
        with self.lock:
            if self._queue is None:
                settings = self._settings
                self._queue = MemoryQueue(settings.queue_size, settings.queue_memory)
                # The handler isn't known yet; it may want them.
                self._queue.with_meta = self._queue.keep_lines = True
            return self._queue

    @property
    def intake(self) -> Intake:
        """The one way to the queue."""
        with self.lock:
            if self._intake is None:
                self._intake = Intake(self.queue, self._settings.max_event_size)
            return self._intake

    @property
    def web(self) -> WebApp:
        """The Flask app."""
        with self.lock:
            if self._web is None:
                self._web = WebApp(self._blueprint, self._views())
            return self._web

    @property
    def access(self) -> Access:
        """Who may do what."""
        # Without the lock, which would cost a microsecond per request.
        if (access := self._access) is None:
            access = self._access = Access(self._settings)
        return access

    def apply_limits(self) -> None:
        """Apply the settings to what was made before the configuration was known."""
        settings = self._settings
        with self.lock:
            if self._queue is not None:
                self._queue.size = settings.queue_size
                self._queue.memory_limit = settings.queue_memory
            self._access = None
            if self._intake is not None:
                self._intake.max_event_size = settings.max_event_size

    def replace_queue(self, queue: EventQueue) -> None:
        """Put events on this queue from now on."""
        with self.lock:
            self._queue = queue
            self.intake.use(queue)

    def close_queue(self) -> None:
        """Close the queue, if there is one: otherwise the next start in this process would find its
        file in use."""
        if self._queue is not None:
            self._queue.request_stop()
            self._queue.join(1.0)

    @property
    def _settings(self) -> Settings:
        return self._config.settings

    @property
    def _logger(self) -> logging.Logger:
        return self._master.logger
