"""Redis: a sorted set by price for each place, class and least number of free slots, and a script
in Lua that takes the first of each and keeps the eight best. It is not exact: what is dear but
near in every other respect is missed."""

import os
import shutil
import socket
import struct
import subprocess
import time

# The first so many of each set are looked at.
FIRST = 8
FIND = """
local near, classes = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
local slots, bits, driver, quality = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local cpu, memory, disk, price_max = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10]
local app, wp, wl, wq = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])
local cold, wf, level = tonumber(ARGV[15]), tonumber(ARGV[16]), ARGV[17]
local first = tonumber(ARGV[18])
local best, count = {}, 0
for _, place in ipairs(near) do
  local way = wl * place[2]
  for _, class in ipairs(classes) do
    local key = place[1] .. ':' .. class .. ':' .. level
    local members = redis.call('ZRANGEBYSCORE', key, '-inf', price_max, 'LIMIT', 0, first)
    for _, member in ipairs(members) do
      local id, has, mine, good, free, cores, pages, scratch, ready, price =
        struct.unpack('<I4I4I1I2I2I2I4I4I2I4', member)
      if free >= slots and mine >= driver and good >= quality and cores >= cpu and pages >= memory
         and scratch >= disk and bit.band(has, bits) == bits then
        local cost = wp * price + way + wq * (10000 - good) + wf * (free - slots)
        if ready ~= app then cost = cost + cold end
        if count < 8 or cost < best[count] then
          local at = count < 8 and count + 1 or 8
          if count < 8 then count = count + 1 end
          while at > 1 and best[at - 1] > cost do
            best[at] = best[at - 1]
            at = at - 1
          end
          best[at] = cost
        end
      end
    end
  end
end
for place = 1, count do best[place] = string.format('%.0f', best[place]) end
return best
"""


class Redis:
    clock = staticmethod(time.perf_counter)
    variants = ("",)

    @staticmethod
    def missing():
        if shutil.which("redis-server"):
            return None
        return "`apt-get install redis-server`"

    def __init__(self, folder):
        path = os.path.join(folder, "redis.sock")
        command = ["redis-server", "--port", "0", "--unixsocket", path, "--save", ""]
        command += ["--appendonly", "no", "--dir", folder]
        self.server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for _ in range(100):
            if os.path.exists(path):
                break
            time.sleep(0.1)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")
        self.load(folder)
        self.script = self.ask("SCRIPT", "LOAD", FIND)

    def load(self, folder):
        sets = {}
        with open(os.path.join(folder, "rows.tsv"), encoding="ascii") as file:
            for line in file:
                row = [int(word) for word in line.split("\t")]
                number, place, kind, price, quality, free, cpu, memory, disk, bits, driver, app = row
                if free == 0:
                    continue
                member = struct.pack(
                    "<IIBHHHIIHI", number, bits, driver, quality, free, cpu, memory, disk,
                    app & 0xFFFF, price,
                )
                for level in (1, 2, 4, 8):
                    if free >= level:
                        sets.setdefault(f"{place}:{kind}:{level}", []).extend((price, member))
        for key, pairs in sets.items():
            for at in range(0, len(pairs), 2_000):
                self.ask("ZADD", key, *pairs[at : at + 2_000])

    def use(self, variant):
        pass

    def find(self, search):
        wp, wl, wq, cold, wf = search["weights"]
        near = list(zip(search["locations"], search["latencies"]))
        level = max(level for level in (1, 2, 4, 8) if level <= search["slots"])
        if search["app"] < -1:
            cold = 0
        found = self.ask(
            "EVALSHA", self.script, 0, str([list(pair) for pair in near]), str(search["classes"]),
            search["slots"], search["bits"], search["driver"], search["quality_min"],
            search["cpu"], search["memory"], search["disk"], search["price_max"], search["app"],
            wp, wl, wq, cold, wf, level, FIRST,
        )
        return [int(cost) for cost in found]

    def ask(self, *words):
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            word = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(word), word))
        self.socket.sendall(b"".join(parts))
        return self.answer()

    def answer(self):
        line = self.file.readline()[:-2]
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b"$":
            return self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        return rest

    def close(self):
        self.socket.close()
        self.server.terminate()
        self.server.wait()
