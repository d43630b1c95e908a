#!/bin/sh
# SPDX-License-Identifier: MIT
# Ctrl-C in a conversation ends the answer and not the program.
[ -n "$ATTEND_ATTEND" ] || { echo "1..0 # SKIP ATTEND_ATTEND does not name the program"; exit; }
[ -f "$ATTEND_MODEL" ] || { echo "1..0 # SKIP ATTEND_MODEL names no model"; exit; }
command -v python3 >/dev/null || { echo "1..0 # SKIP there is no python3 to press keys"; exit; }
exec python3 - <<'END'
import os
import re
import signal
import subprocess

chat = subprocess.Popen([os.environ["ATTEND_ATTEND"], "generate", "-m", os.environ["ATTEND_MODEL"], "--interactive",
                         "-n", "2000", "--quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
chat.stdin.write(b"Write a very long story about a river.\n")
chat.stdin.flush()
said = chat.stdout.read(20)  # it is talking
chat.send_signal(signal.SIGINT)
rest = chat.communicate(b"/stats\n/quit\n", timeout=300)[0].decode(errors="replace")
stats = re.search(r"1 turns; .* wrote (\d+) ", rest)
results = [(len(said) == 20, "an answer begins"), (stats is not None, "Ctrl-C, and the program still answers"),
           (stats is not None and 0 < int(stats.group(1)) < 1999, "the answer was cut"),
           (chat.returncode == 0, "/quit ends it")]
for i, (good, name) in enumerate(results):
    print("%s %d - %s" % ("ok" if good else "not ok", i + 1, name))
if not all(good for good, _ in results):
    print("# " + rest[-300:].replace("\n", "\n# "))
print("1..%d" % len(results))
END
