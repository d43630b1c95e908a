# SPDX-License-Identifier: MIT
"""The ABI as text, from the XML of abidw (abigail-tools) on stdin: each exported function with its types, and the
layout of each structure and the values of each enumeration that they reach and that the headers, which are the
arguments, do not keep to themselves."""
import re
import sys
import xml.etree.ElementTree as ET

ROOT = ET.parse(sys.stdin).getroot()
OPEN = set(re.findall(r"(?:struct|enum) (\w+) \{", "".join(open(h).read() for h in sys.argv[1:])))
TYPES = {t.get("id"): t for t in ROOT.iter() if t.get("id")}
reached = {}


def name(key):
    """A type as C writes it, nearly."""
    t = TYPES.get(key)
    if t is None:
        return "?"
    if t.tag == "pointer-type-def":
        return name(t.get("type-id")) + " *"
    if t.tag == "qualified-type-def":
        words = [w for w in ("const", "volatile") if t.get(w) == "yes"]
        return " ".join(words + [name(t.get("type-id"))])
    if t.tag == "array-type-def":
        return name(t.get("type-id")) + "".join("[%s]" % s.get("length") for s in t.findall("subrange"))
    if t.tag == "function-type":
        return signature(t, "(*)")
    if t.tag == "typedef-decl":
        name(t.get("type-id"))
        return t.get("name")
    if t.tag in ("class-decl", "union-decl", "enum-decl"):
        if t.get("name") in OPEN and t.get("name") not in reached:
            reached[t.get("name")] = t
            for member in t.iter("var-decl"):
                name(member.get("type-id"))
    return t.get("name") or t.tag


def signature(f, what):
    given = [name(p.get("type-id")) if p.get("type-id") else "..." for p in f.findall("parameter")]
    return "%s %s(%s)" % (name(f.find("return").get("type-id")), what, ", ".join(given))


functions = {f.get("name"): signature(f, f.get("name")) for f in ROOT.iter("function-decl")
             if f.get("elf-symbol-id") and f.get("name").startswith("attend_")}
for key in sorted(functions):
    print(functions[key])
for key, t in sorted(reached.items()):
    if t.tag == "enum-decl":
        print("enum %s: %s" % (key, ", ".join("%s = %s" % (e.get("name"), e.get("value"))
                                              for e in t.findall("enumerator"))))
    else:
        print("struct %s, %d bytes" % (key, int(t.get("size-in-bits")) // 8))
        for m in t.findall("data-member"):
            v = m.find("var-decl")
            print("  %4d %s %s" % (int(m.get("layout-offset-in-bits", "0")) // 8, name(v.get("type-id")), v.get("name")))
