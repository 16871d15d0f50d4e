"""PostgreSQL on a socket of its own, without waiting for disks: a covering partial index, and two
prepared statements. `exact` looks at all that fits; `first` at the cheapest eight of each place and
class, which misses what is dear but near in every other respect."""

import glob
import os
import shutil
import socket
import struct
import subprocess
import time

COLUMNS = "id, loc, class, price, quality, free, cpu, memory, disk, bits, driver, app"
COST = """$5 * c.price::bigint + $6 * n.lat::bigint + $7 * (10000 - c.quality)::bigint
  + $8 * (c.free - $9)::bigint + CASE WHEN c.app = $10 THEN 0 ELSE $11 END"""
FITS = """c.price <= $4 AND c.free > 0 AND c.free >= $9 AND c.bits & $12 = $12
  AND c.driver >= $13 AND c.quality >= $14 AND c.cpu >= $15 AND c.memory >= $16
  AND c.disk >= $17"""
TYPES = """int[], int[], int[], int, bigint, bigint, bigint, bigint, int, int, bigint, int, int,
  int, int, int, int"""
STATEMENTS = {
    "exact": f"""SELECT {COST} AS cost, c.id FROM unnest($1, $2) n(loc, lat)
      JOIN containers c ON c.loc = n.loc AND c.class = ANY($3) AND {FITS}
      ORDER BY cost LIMIT 8""",
    "first": f"""SELECT {COST} AS cost, c.id FROM unnest($1, $2) n(loc, lat)
      CROSS JOIN unnest($3) k(class) CROSS JOIN LATERAL (
        SELECT * FROM containers c WHERE c.loc = n.loc AND c.class = k.class AND {FITS}
        ORDER BY c.price LIMIT 8) c
      ORDER BY cost LIMIT 8""",
}
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "1GB",
    "work_mem": "64MB",
    "maintenance_work_mem": "512MB",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "random_page_cost": "1.0",
    "listen_addresses": "",
    "autovacuum": "off",
}


def folder_of_programs():
    """Where Debian keeps the newest one."""
    found = glob.glob("/usr/lib/postgresql/*/bin/initdb")
    return os.path.dirname(max(found)) if found else None


class Postgres:
    clock = staticmethod(time.perf_counter)
    variants = tuple(STATEMENTS)

    @staticmethod
    def missing():
        if folder_of_programs() is None:
            return "`apt-get install postgresql`"
        if os.geteuid() == 0 and subprocess.run(
            ["id", "postgres"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        ).returncode:
            return "it does not run as root and there is no user `postgres`"
        return None

    def __init__(self, folder):
        programs = folder_of_programs()
        self.home = os.path.join(folder, "postgres")
        os.mkdir(self.home)
        # It refuses to run as root.
        self.user = []
        if os.geteuid() == 0:
            shutil.chown(self.home, "postgres", "postgres")
            self.user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        data = os.path.join(self.home, "data")
        quiet = {"stdout": subprocess.DEVNULL, "cwd": self.home, "check": True}
        initdb = [os.path.join(programs, "initdb"), "-D", data, "-A", "trust", "-U", "postgres"]
        subprocess.run([*self.user, *initdb, "--no-sync"], **quiet)
        command = [os.path.join(programs, "postgres"), "-D", data, "-k", self.home]
        for name, value in SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        self.server = subprocess.Popen([*self.user, *command], cwd=self.home,
                                       stderr=subprocess.DEVNULL)
        self.connect(os.path.join(self.home, ".s.PGSQL.5432"))
        self.load(folder)
        for name, text in STATEMENTS.items():
            self.simple(f"PREPARE find_{name} ({TYPES}) AS {text}")
        # Plans for the values at hand took longer than they saved.
        self.simple("SET plan_cache_mode = force_generic_plan")

    def connect(self, path):
        for _ in range(300):
            try:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(path)
                break
            except OSError:
                time.sleep(0.1)
        self.file = self.socket.makefile("rb")
        body = struct.pack(">I", 196_608) + b"user\0postgres\0database\0postgres\0\0"
        self.socket.sendall(struct.pack(">I", len(body) + 4) + body)
        self.until_ready()

    def load(self, folder):
        names = ", ".join(f"{name} int" for name in COLUMNS.split(", "))
        self.simple(f"CREATE UNLOGGED TABLE containers ({names})")
        self.send(b"Q", b"COPY containers FROM STDIN\0")
        with open(os.path.join(folder, "rows.tsv"), "rb") as file:
            while piece := file.read(1 << 20):
                self.send(b"d", piece)
        self.send(b"c", b"")
        self.until_ready()
        self.simple(
            "CREATE INDEX places ON containers (loc, class, price) INCLUDE (id, quality, free, cpu,"
            " memory, disk, bits, driver, app) WHERE free > 0"
        )
        self.simple("VACUUM (FREEZE, ANALYZE) containers")

    def use(self, variant):
        self.statement = f"find_{variant}".encode()

    def find(self, search):
        wp, wl, wq, cold, wf = search["weights"]
        if search["app"] < -1:
            cold = 0
        array = lambda numbers: "{" + ",".join(map(str, numbers)) + "}"
        values = (
            array(search["locations"]), array(search["latencies"]), array(search["classes"]),
            search["price_max"], wp, wl, wq, wf, search["slots"], search["app"], cold,
            search["bits"], search["driver"], search["quality_min"], search["cpu"],
            search["memory"], search["disk"],
        )
        bind = [b"\0", self.statement, b"\0", struct.pack(">HH", 0, len(values))]
        for value in values:
            text = str(value).encode()
            bind.append(struct.pack(">I", len(text)) + text)
        bind.append(struct.pack(">H", 0))
        self.socket.sendall(
            message(b"B", b"".join(bind)) + message(b"E", b"\0\0\0\0\0") + message(b"S", b"")
        )
        return [int(row) for row in self.until_ready()]

    def simple(self, text):
        self.send(b"Q", text.encode() + b"\0")
        self.until_ready()

    def send(self, kind, body):
        self.socket.sendall(message(kind, body))

    def until_ready(self):
        """The first column of each row that comes before the server is ready again."""
        rows, failed = [], None
        while True:
            head = self.file.read(5)
            if len(head) < 5:
                raise RuntimeError("postgres: the connection ended")
            body = self.file.read(struct.unpack(">I", head[1:])[0] - 4)
            if head[:1] == b"D":
                length = struct.unpack(">I", body[2:6])[0]
                rows.append(body[6 : 6 + length])
            elif head[:1] == b"E":
                failed = body.replace(b"\0", b" ").decode()
            elif head[:1] == b"Z":
                if failed:
                    raise RuntimeError(f"postgres: {failed}")
                return rows

    def close(self):
        self.socket.close()
        # SIGINT: a fast end. `setpriv` has become the server.
        self.server.send_signal(2)
        self.server.wait()


def message(kind, body):
    return kind + struct.pack(">I", len(body) + 4) + body
