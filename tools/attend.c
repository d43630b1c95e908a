/* SPDX-License-Identifier: MIT */
/* The program: one verb a command line, cmd_VERB.c each. */
#include "cmd.h"

#include <stdio.h>
#include <string.h>

extern const struct cmd_verb cmd_devices, cmd_sdpa, cmd_generate, cmd_logits, cmd_embed, cmd_map,
    cmd_run_onnx, cmd_plan, cmd_check, cmd_bench;

const struct cmd_verb *const cmd_verbs[] = {
    &cmd_devices,  &cmd_sdpa, &cmd_generate, &cmd_logits, &cmd_embed, &cmd_map,
    &cmd_run_onnx, &cmd_plan, &cmd_check,    &cmd_bench,  NULL,
};

static void print_verbs(FILE *out)
{
    fprintf(out, "usage: attend VERB ...\n\n");
    for (const struct cmd_verb *const *v = cmd_verbs; *v; v++)
        fprintf(out, "  %-10s %s\n", (*v)->name, (*v)->summary);
    fprintf(out, "\nattend VERB --help tells more; attend --version says which version this is.\n");
}

/* attend plan VERB ... */
static int plan_verb(int argc, char **argv)
{
    const struct cmd_verb *verb = cmd_find_verb(argv[0]);
    if (verb && verb->plans)
        return cmd_run(verb, argc - 1, argv + 1, true);
    if (verb)
        fprintf(stderr, "attend plan: %s runs nothing that has a plan\n", verb->name);
    return CMD_WRONG;
}

static int run(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "--version") == 0) {
        printf("attend %s\n", attend_version());
        return CMD_DONE;
    }
    if (strcmp(name, "--help") == 0) {
        print_verbs(stdout);
        return CMD_DONE;
    }
    if (argc < 2) {
        print_verbs(stderr);
        return CMD_WRONG;
    }
    const struct cmd_verb *verb = cmd_find_verb(name);
    if (verb == &cmd_plan && argc > 2 && argv[2][0] != '-' && !strchr(argv[2], ':'))
        return plan_verb(argc - 2, argv + 2);
    return verb ? cmd_run(verb, argc - 2, argv + 2, false) : CMD_WRONG;
}

int main(int argc, char **argv)
{
    int status = run(argc, argv);
    bool lost = ferror(stdout) != 0;
    if (fclose(stdout) != 0 || lost) {
        fprintf(stderr, "attend: cannot write the standard output\n");
        return status == CMD_DONE ? CMD_FAILED : status;
    }
    return status;
}
