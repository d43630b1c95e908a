# SPDX-License-Identifier: MIT
# Text files as C strings: `awk -f embed.awk -v header=H -v array='NAME[COUNT]' FILES` prints the array that H
# declares, in the order of the files.
BEGIN {
    print "/* Made by build-aux/embed.awk. */"
    print "#include \"" header "\""
    print ""
    print "const char *const " array " = {"
}
FNR == 1 && NR > 1 { print "    ," }
{
    gsub(/\\/, "&&")
    gsub(/"/, "\\\"")
    print "    \"" $0 "\\n\""
}
END { print "};" }
