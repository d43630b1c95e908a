# SPDX-License-Identifier: MIT
# Text files as C strings: `awk -f embed.awk FILES` prints at_gpu_text[], in the order of the files.
BEGIN {
    print "/* Made by build-aux/embed.awk. */"
    print "#include \"gpu.h\""
    print ""
    print "const char *const at_gpu_text[AT_GPU_FILES] = {"
}
FNR == 1 && NR > 1 { print "    ," }
{
    gsub(/\\/, "\\\\")
    gsub(/"/, "\\\"")
    print "    \"" $0 "\\n\""
}
END { print "};" }
