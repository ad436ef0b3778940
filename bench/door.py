#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A port of this machine that leads to a unix socket: how a browser reaches the status page of an agent in a network namespace."""
import asyncio
import threading
from pathlib import Path

PART_BYTES = 1 << 16


class Door:
    """Listens on 127.0.0.1 until the program ends. Raises OSError if the port is taken."""

    def __init__(self, port: int, target: Path):
        self.target = target
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(asyncio.start_server(self._visit, "127.0.0.1", port))
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        try:
            inner_reader, inner_writer = await asyncio.open_unix_connection(str(self.target))
        except OSError:  # the agent is gone
            writer.close()
            return
        await asyncio.gather(self._carry(reader, inner_writer), self._carry(inner_reader, writer))

    @staticmethod
    async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        try:
            while part := await reader.read(PART_BYTES):
                writer.write(part)
                await writer.drain()
        except OSError:
            pass
        writer.close()
