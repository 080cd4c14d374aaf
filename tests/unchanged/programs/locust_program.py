"""locust: a master and two workers, and a load without a web server."""

import json
import re
import subprocess
import sys
import tempfile

LOCUSTFILE = """
from locust import User, task, constant, events

class Somebody(User):
    wait_time = constant(0.1)

    @task
    def work(self):
        self.environment.events.request.fire(
            request_type="own", name="work", response_time=1, response_length=1, exception=None
        )
"""

with tempfile.TemporaryDirectory() as directory:
    path = f"{directory}/locustfile.py"
    with open(path, "w") as file:
        file.write(LOCUSTFILE)
    locust = [sys.executable, "-m", "locust", "-f", path]
    master = subprocess.Popen(
        [
            *(*locust, "--master", "--headless", "--only-summary"),
            *("--expect-workers", "2", "-u", "4", "-r", "4", "-t", "5s"),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    workers = [
        subprocess.Popen(
            [*locust, "--worker", "--master-host", "127.0.0.1"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(2)
    ]
    output, errors = master.communicate(timeout=90)
    said = [worker.communicate(timeout=30)[1] for worker in workers]

total = re.search(r"Aggregated\s+(\d+)", output + errors)
found = {
    "master": str(master.returncode),
    "workers": str([worker.returncode for worker in workers]),
    "all workers were ready": str("All users spawned" in errors),
    "work was done": str(bool(total) and int(total[1]) > 40),
    "no heartbeat was missed": str("heartbeat" not in errors + "".join(said)),
}
print(output, errors, *said, sep="\n")
with open(sys.argv[1], "w") as results:
    json.dump(found, results)
