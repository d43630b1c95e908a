/* SPDX-License-Identifier: MIT */
/* A conversation: a line is read, wrapped as the model's template does, fed behind what was said
 * before, and the answer is shown as it is made.  Ctrl-C ends an answer, not the program. */
#include "chat.h"
#include "model.h"
#include "os.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 65536, BATCH = 512 };

struct chat {
    struct model model;
    attend_tokenizer *tokenizer;
    attend_sampler *sampler;
    float *logits;
    char *line;                         /* [LINE] */
    bool person;                        /* at a terminal: prompts are shown */
    int64_t most, turns;                /* tokens of an answer; turns so far */
    int64_t fed, fed_ns, made, made_ns; /* tokens and time of all turns */
};

static volatile int stop; /* set by Ctrl-C */

static const struct command {
    const char *name, *help;
} commands[] = {
    {"/stats", "tokens, times, and how full the context is"},
    {"/reset", "forgets what was said"                     },
    {"/help",  "this"                                      },
    {"/quit",  "the end; Ctrl-D is too"                    },
};

/* ---- commands ---- */

static double per_second(int64_t n, int64_t ns)
{
    return ns > 0 ? 1e9 * (double)n / (double)ns : 0;
}

static void print_stats(const struct chat *c)
{
    printf("%" PRId64 " turns; %" PRId64 " of %" PRId64 " tokens of context; read %" PRId64
           " (%.1f a second), wrote %" PRId64 " (%.1f a second)\n",
           c->turns, attend_llama_fed(c->model.llama), attend_llama_context(c->model.llama), c->fed,
           per_second(c->fed, c->fed_ns), c->made, per_second(c->made, c->made_ns));
}

/* False: the conversation ends. */
static bool run_command(struct chat *c)
{
    if (strcmp(c->line, "/quit") == 0)
        return false;
    if (strcmp(c->line, "/stats") == 0) {
        print_stats(c);
    } else if (strcmp(c->line, "/reset") == 0) {
        attend_llama_reset(c->model.llama);
        c->turns = 0;
    } else {
        if (strcmp(c->line, "/help") != 0)
            printf("There is no %s.\n", c->line);
        for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
            printf("%-8s %s\n", commands[i].name, commands[i].help);
        printf("Ctrl-C   stops an answer\n");
    }
    return true;
}

/* ---- a turn ---- */

/* Tokens of what was said, wrapped; NULL and a message where that fails. */
static int32_t *wrap(struct chat *c, int64_t *n)
{
    char err[320], *text;
    const bool first = attend_llama_fed(c->model.llama) == 0;
    int64_t size = (first ? attend_chat_wrap : attend_chat_wrap_later)(
        c->model.gguf, c->line, strlen(c->line), &text, err, sizeof err);
    int32_t *id = size >= 0 ? malloc(((size_t)size + 1) * sizeof *id) : NULL;
    *n =
        id ? attend_tokenizer_encode(c->tokenizer, text, (size_t)size, 1, id, err, sizeof err) : -1;
    attend_free(text);
    if (*n >= 0)
        return id;
    cmd_fail(c->model.l, NULL, "%s", size >= 0 && !id ? "no memory for a turn" : err);
    free(id);
    return NULL;
}

/* 0, or a status; what is told is told here. */
static int feed(struct chat *c, const int32_t *id, int64_t n, int64_t *count, int64_t *ns)
{
    char err[320];
    int64_t start = at_os_now();
    int status = attend_llama_feed(c->model.llama, id, n, n - 1, c->logits, err, sizeof err);
    *ns += at_os_now() - start;
    if (status == 0)
        *count += n;
    else if (status == ATTEND_ELIMIT)
        printf("\n(The context is full: /reset begins anew.)");
    else if (status != ATTEND_ECANCELLED)
        cmd_fail(c->model.l, c->model.file, "%s", err);
    return status;
}

static void show(const struct chat *c, attend_utf8 *tail, int32_t id)
{
    attend_str piece = id >= 0 ? attend_tokenizer_piece(c->tokenizer, id) : (attend_str){NULL, 0};
    char *out = malloc(3 * (piece.n + 3));
    if (out)
        fwrite(out, 1, attend_utf8_push(tail, piece.s, piece.n, out), stdout);
    fflush(stdout);
    free(out);
}

static void answer(struct chat *c)
{
    attend_utf8 tail = {{0}, 0};
    for (int64_t i = 0; i < c->most && !stop; i++) {
        int32_t id = attend_sampler_pick(c->sampler, c->logits, NULL, 0);
        if (id < 0 || attend_tokenizer_kind(c->tokenizer, id) == ATTEND_TOKEN_END)
            break;
        if (attend_tokenizer_kind(c->tokenizer, id) == ATTEND_TOKEN_TEXT)
            show(c, &tail, id);
        if (feed(c, &id, 1, &c->made, &c->made_ns) < 0)
            break;
    }
    show(c, &tail, -1);
    printf("%s\n", stop ? " (stopped)" : "");
}

static void turn(struct chat *c)
{
    int64_t n;
    int32_t *id = wrap(c, &n);
    if (id && feed(c, id, n, &c->fed, &c->fed_ns) == 0) {
        c->turns++;
        answer(c);
    } else if (id) {
        printf("\n");
    }
    free(id);
}

/* ---- the conversation ---- */

/* The next line; false at the end.  Ctrl-C here gives an empty one. */
static bool read_line(struct chat *c)
{
    if (c->person)
        printf("> ");
    fflush(stdout);
    if (!fgets(c->line, LINE, stdin)) {
        if (!stop || feof(stdin))
            return false;
        printf("\n(/quit or Ctrl-D ends.)\n");
        clearerr(stdin);
        c->line[0] = 0;
    }
    c->line[strcspn(c->line, "\r\n")] = 0;
    return true;
}

static int converse(struct chat *c)
{
    attend_llama_cancel(c->model.llama, &stop);
    at_os_on_interrupt(&stop);
    if (c->person)
        printf("Say something. /help lists commands, Ctrl-C stops an answer, Ctrl-D ends.\n");
    while (read_line(c)) {
        stop = 0;
        if (c->line[0] == '/' && !run_command(c))
            break;
        if (c->line[0] && c->line[0] != '/')
            turn(c);
    }
    return CMD_DONE;
}

/* That the template is known is found out before anything is said. */
static int check_template(const struct chat *c)
{
    char err[320], *text;
    int64_t n = attend_chat_wrap(c->model.gguf, "", 0, &text, err, sizeof err);
    attend_free(text);
    return n < 0 ? cmd_fail(c->model.l, c->model.file, "%s", err) : CMD_DONE;
}

static int start(struct chat *c)
{
    char err[320];
    if (attend_tokenizer_new(c->model.gguf, &c->tokenizer, err, sizeof err) < 0)
        return cmd_fail(c->model.l, c->model.file, "%s", err);
    int status = check_template(c);
    if (status == CMD_DONE)
        status = model_make(&c->model, "a conversation", 0, BATCH);
    if (status == CMD_DONE)
        status = model_sampler(&c->model, &c->sampler);
    if (status != CMD_DONE)
        return status;
    c->line = malloc(LINE);
    c->logits = malloc((size_t)attend_llama_vocabulary(c->model.llama) * sizeof *c->logits);
    if (!c->line || !c->logits)
        return cmd_fail(c->model.l, NULL, "no memory for a conversation");
    return converse(c);
}

int chat_run(const struct cmd_line *l)
{
    struct chat c = {.most = 512, .person = at_os_is_terminal(0) && at_os_is_terminal(1)};
    static const char *const others[] = {"-p", "--logits", "--json", "--chat"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (cmd_has(l, others[i]))
            return cmd_wrong(l, "%s does not go with --interactive", others[i]);
    if (!cmd_int(l, "-n", 1, INT32_MAX, &c.most))
        return CMD_WRONG;
    int status = model_open(&c.model, l);
    if (status == CMD_DONE)
        status = start(&c);
    attend_sampler_free(c.sampler);
    attend_tokenizer_free(c.tokenizer);
    model_close(&c.model);
    free(c.line);
    free(c.logits);
    return status;
}
