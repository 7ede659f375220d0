"""One process of the load generator: `python -m bench.worker`, spoken to by `bench.load`.

It takes a Job as a line of JSON, says `ready`, waits for a line, and answers
with its Result as a line of JSON.
"""

import json
import select
import sys
import time
from dataclasses import asdict
from pathlib import Path

from bench.clients import Client
from bench.job import Job, Result
from bench.reading import Reader
from bench.writing import Writer

_LOOK = 0.05  # seconds between two looks for clients that wait in vain
_EVENTS = 256
_TOLD = 3  # failures that are told in words


class Fleet:
    """Keeps the clients of a job busy until its transfers are done or time is up."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._reference = Path(job.reference).read_bytes()
        self._make = Writer if job.upload else Reader
        self._clients: dict[int, Client] = {}
        self._epoll = select.epoll()
        self._started = 0
        self._result = Result()

    def run(self) -> Result:
        """Do the job."""
        began, cpu = time.monotonic(), time.process_time()
        for _ in range(min(self._job.clients, self._job.transfers)):
            self._start()
        step = self._step_alone if self._job.clients == 1 else self._step
        deadline, look = began + self._job.limit, began + _LOOK
        while self._clients and (now := time.monotonic()) < deadline:
            step()
            if now >= look:
                look = now + _LOOK
                self._look(now)
        result = self._result
        result.seconds = time.monotonic() - began
        result.cpu = time.process_time() - cpu
        result.busiest = result.cpu / result.seconds
        self._give_up()
        return result

    def _start(self) -> None:
        job = self._job
        name = f"{job.name}.{job.first + self._started}" if job.upload else job.name
        client = self._make(job, self._reference, name, blocking=job.clients == 1)
        self._started += 1
        self._clients[client.socket.fileno()] = client
        if job.clients > 1:
            self._epoll.register(client.socket, select.EPOLLIN)

    def _step(self) -> None:
        for fd, _ in self._epoll.poll(_LOOK, _EVENTS):
            client = self._clients[fd]
            client.ready()
            if client.done:
                self._finish(client)

    def _step_alone(self) -> None:
        """A lone client waits in its socket, which spares it a system call a packet."""
        (client,) = self._clients.values()
        client.ready()
        if client.done:
            self._finish(client)

    def _look(self, now: float) -> None:
        for client in list(self._clients.values()):
            client.tick(now)
            if client.done:
                self._finish(client)

    def _finish(self, client: Client) -> None:
        result = self._result
        if client.failure:
            self._count_failure(client.failure)
            result.declined = result.declined or client.declined
        else:
            result.ok += 1
            result.latencies.append(time.monotonic() - client.started)
        self._free(client)
        if self._started < self._job.transfers and not result.declined:
            self._start()

    def _free(self, client: Client) -> None:
        self._result.octets += client.octets
        self._result.resent += client.resent
        del self._clients[client.socket.fileno()]
        client.close()

    def _give_up(self) -> None:
        """What has not ended by now has failed, and so has what never began."""
        for client in list(self._clients.values()):
            self._count_failure("out of time")
            self._free(client)
        self._result.failed += self._job.transfers - self._started
        self._epoll.close()

    def _count_failure(self, why: str) -> None:
        self._result.failed += 1
        if len(self._result.failures) < _TOLD:
            self._result.failures.append(why)


def main() -> None:
    """Do the job that stands in standard input."""
    fleet = Fleet(Job(**json.loads(sys.stdin.readline())))
    print("ready", flush=True)
    if sys.stdin.readline():
        print(json.dumps(asdict(fleet.run())), flush=True)


if __name__ == "__main__":
    main()
