/* SPDX-License-Identifier: MIT */
/* Runs the program under test as a user would.  What it says is kept beside the folder, which holds
 * only what the test and the program put there. */
#include "program.h"
#include "env.h"
#include "os.h"
#include "tap.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char program_out[20000], program_err[4000];
static const char *program, *folder;
static long limit; /* KiB of address space; 0: none */
static int exit_status;

static void shell(const char *command)
{
    if (system(command) != 0)
        bail("cannot run %s", command);
}

static void read_text(const char *what, char *text, size_t size)
{
    char path[256];
    snprintf(path, sizeof path, "%s.%s", folder, what);
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(text, 1, size - 1, f) : 0;
    text[n] = 0;
    if (f)
        fclose(f);
}

void program_init(const char *name)
{
    char command[256], why[320];
    program = at_env(AT_ENV_ATTEND);
    folder = name;
    if (!program)
        skip_all("%s does not name the program", at_env_name(AT_ENV_ATTEND));
    snprintf(command, sizeof command, "rm -rf %s", folder);
    shell(command);
    if (at_os_make_dir(folder, why, sizeof why) < 0)
        bail("%s", why);
}

void program_fini(void)
{
    char command[256];
    snprintf(command, sizeof command, "rm -r %s %s.out %s.err %s.status", folder, folder, folder,
             folder);
    shell(command);
}

void program_limit(long kib)
{
    limit = kib;
}

int program_run(const char *args, ...)
{
    char text[4000], command[5000], status[16], bound[64] = "";
    va_list ap;
    va_start(ap, args);
    vsnprintf(text, sizeof text, args, ap);
    va_end(ap);
    if (limit)
        snprintf(bound, sizeof bound, "ulimit -v %ld; ", limit);
    snprintf(command, sizeof command,
             "cd %s && (%s'%s' %s) >../%s.out 2>../%s.err; echo $? >../%s.status", folder, bound,
             program, text, folder, folder, folder);
    shell(command);
    read_text("out", program_out, sizeof program_out);
    read_text("err", program_err, sizeof program_err);
    read_text("status", status, sizeof status);
    exit_status = atoi(status) < 128 ? atoi(status) : -1;
    return exit_status;
}

void program_said(int status, const char *sentence)
{
    char *newline = strchr(program_err, '\n');
    bool line = newline && !newline[1];
    if (newline)
        *newline = 0;
    is_int(exit_status, status, "exit status");
    is_str(program_err, sentence, "says so");
    ok(line, "in one line");
}

void program_left(const char *names)
{
    char command[256], left[1000];
    snprintf(command, sizeof command, "cd %s && LC_ALL=C ls -A | tr '\\n' ' ' >../%s.out", folder,
             folder);
    shell(command);
    read_text("out", left, sizeof left);
    is_str(left, names, "no other files are left");
}
