/* SPDX-License-Identifier: MIT */
/* attend generate --interactive. */
#ifndef CHAT_H
#define CHAT_H

#include "cmd.h"

/* A conversation on stdin and stdout until its end; an exit status. */
int chat_run(const struct cmd_line *l);

#endif
