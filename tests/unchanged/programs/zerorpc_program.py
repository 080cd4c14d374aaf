"""zerorpc: a server and a client, with heartbeats, streams, errors and timeouts."""

import json
import sys

import gevent
import zerorpc


class Service:
    """What the server offers."""

    def hello(self, name):
        return f"hello, {name}"

    @zerorpc.stream
    def count(self, up_to):
        return iter(range(up_to))

    def fail(self):
        raise ValueError("as it should")

    def sleep(self, seconds):
        gevent.sleep(seconds)
        return "slept"


server = zerorpc.Server(Service(), heartbeat=1)
server.bind("tcp://127.0.0.1:5598")
running = gevent.spawn(server.run)

client = zerorpc.Client(timeout=10, heartbeat=1)
client.connect("tcp://127.0.0.1:5598")
found = {"call": client.hello("world"), "stream": str(sum(client.count(500)))}
try:
    client.fail()
except zerorpc.RemoteError as exc:
    found["error"] = f"{exc.name}: {exc.msg}"
found["heartbeats"] = client.sleep(3)
calls = [gevent.spawn(client.hello, str(number)) for number in range(20)]
gevent.joinall(calls, timeout=20)
found["many at once"] = str(sorted(call.value for call in calls))
try:
    client.sleep(2, timeout=0.5)
except zerorpc.TimeoutExpired as exc:
    found["timeout"] = type(exc).__name__
client.close()
server.stop()
running.join(5)

with open(sys.argv[1], "w") as results:
    json.dump(found, results)
