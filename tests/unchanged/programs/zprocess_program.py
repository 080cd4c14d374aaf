"""zprocess: a parent and its processes, which speak over sockets; events, and a server."""

import json
import sys

import zprocess


class Doubling(zprocess.Process):
    """A process that doubles what it is told."""

    def run(self):
        while True:
            number = self.from_parent.get()
            if number is None:
                break
            self.to_parent.put(2 * number)


class Answering(zprocess.ZMQServer):
    """A server that answers in upper case."""

    def handler(self, message):
        return message.upper()


if __name__ == "__main__":
    found = {}
    tree = zprocess.ProcessTree(allow_insecure=True)
    zprocess.set_default_process_tree(tree)
    child = Doubling(tree)
    to_child, from_child = child.start()
    numbers = []
    for number in range(50):
        to_child.put(number)
        numbers.append(from_child.get(timeout=30))
    found["doubled"] = str(sum(numbers))
    to_child.put(None)
    child.child.wait(30)
    found["ended"] = str(child.child.returncode)

    event = tree.event("something", role="both")
    event.post("1", data="news")
    found["event"] = str(event.wait("1", timeout=30))

    server = Answering(5597, bind_address="tcp://127.0.0.1", allow_insecure=True)
    client = zprocess.clientserver.ZMQClient(allow_insecure=True)
    found["answered"] = client.get(5597, "127.0.0.1", "hello", timeout=30)
    server.shutdown()
    with open(sys.argv[1], "w") as results:
        json.dump(found, results)
