/* SPDX-License-Identifier: MIT */
/* Runs the program under test (ATTEND_ATTEND) as a user would, and keeps what it said. */
#ifndef T_PROGRAM_H
#define T_PROGRAM_H

/* Makes an empty folder, in which the program will run.  The test is skipped where no program is
 * named. */
void program_init(const char *folder);
void program_fini(void); /* removes the folder */

/* Runs `attend ARGS` in the folder, the arguments as a shell reads them.  Its exit status, or -1
 * when a signal ended it; its stdout and stderr are in program_out and program_err. */
int program_run(const char *args, ...) __attribute__((format(printf, 1, 2)));
extern char program_out[20000], program_err[4000];
/* Runs of now on have so much address space; 0: all there is. */
void program_limit(long kib);

/* Results: the last run had this exit status and said just this on stderr. */
void program_said(int status, const char *sentence);
/* The folder holds just these files, in byte order, a blank after each: nothing half-written lies
 * around. */
void program_left(const char *names);

#endif
