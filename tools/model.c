/* SPDX-License-Identifier: MIT */
/* A model from a file, as the verbs that run one open it. */
#include "model.h"
#include "os.h"

#include <inttypes.h>
#include <stdio.h>

int model_open(struct model *m, const struct cmd_line *l)
{
    char err[320];
    *m = (struct model){.l = l, .file = cmd_value(l, "-m")};
    if (!m->file)
        return cmd_wrong(l, "-m is missing: which model?");
    if (attend_gguf_open(m->file, &m->gguf, err, sizeof err) < 0)
        return cmd_fail(l, NULL, "%s", err);
    return cmd_context(l, &m->ctx);
}

/* A line that is written over, for a person who waits; gone when all is loaded. */
static void show_progress(void *arg, int64_t done, int64_t all)
{
    (void)arg;
    fprintf(stderr, "\rloading %3d %%", (int)(100 * done / all));
    if (done == all)
        fprintf(stderr, "\r             \r");
    fflush(stderr);
}

static int read_kv(const struct cmd_line *l, attend_type *kv)
{
    static const char *const words[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "fp8", NULL};
    static const attend_type types[] = {ATTEND_F32,  ATTEND_F16,  ATTEND_BF16,
                                        ATTEND_Q8_0, ATTEND_Q4_0, ATTEND_F8};
    int which = 0;
    if (!cmd_choice(l, "--kv", words, &which))
        return CMD_WRONG;
    *kv = types[which];
    return CMD_DONE;
}

int model_opts(const struct model *m, attend_llama_opts *opts)
{
    attend_llama_opts_init(opts);
    opts->device = cmd_value(m->l, "--device");
    if (!cmd_has(m->l, "--quiet") && at_os_is_terminal(2))
        opts->progress = show_progress;
    int status = read_kv(m->l, &opts->kv);
    return status == CMD_DONE ? cmd_precision(m->l, &opts->precision) : status;
}

int model_make(struct model *m, const char *what, int64_t need, int64_t batch)
{
    char err[400];
    attend_llama_opts opts;
    int status = model_opts(m, &opts);
    opts.context = need;
    opts.batch = batch;
    if (status != CMD_DONE)
        return status;
    if (!cmd_int(m->l, "--ctx", 1, INT32_MAX, &opts.context))
        return CMD_WRONG;
    if (need > opts.context)
        return cmd_fail(m->l, NULL, "--ctx is %" PRId64 ", and %s need %" PRId64 " tokens",
                        opts.context, what, need);
    int made = attend_llama_new(m->ctx, m->gguf, &opts, &m->llama, err, sizeof err);
    bool file =
        made == ATTEND_EFORMAT || made == ATTEND_EUNSUPPORTED; /* else: what was asked for */
    if (made < 0 && !cmd_has(m->l, "--ctx") && made == ATTEND_ELIMIT)
        return cmd_fail(m->l, NULL, "%s need %s", what, err);
    return made < 0 ? cmd_fail(m->l, file ? m->file : NULL, "%s", err) : CMD_DONE;
}

int model_sampler(const struct model *m, attend_sampler **sampler)
{
    char err[320];
    int64_t top_k = 0, seed = 0;
    attend_sampler_opts opts;
    attend_sampler_opts_init(&opts);
    if (!cmd_float(m->l, "--temp", 0, 1e6f, &opts.temperature) ||
        !cmd_int(m->l, "--top-k", 0, INT32_MAX, &top_k) ||
        !cmd_float(m->l, "--top-p", 0, 1, &opts.top_p) ||
        !cmd_int(m->l, "--seed", 0, INT64_MAX - 1, &seed))
        return CMD_WRONG;
    opts.top_k = (int32_t)top_k;
    opts.seed = (uint64_t)seed;
    if (attend_sampler_new(&opts, (int32_t)attend_llama_vocabulary(m->llama), sampler, err,
                           sizeof err) < 0)
        return cmd_fail(m->l, NULL, "%s", err);
    return CMD_DONE;
}

void model_close(struct model *m)
{
    attend_llama_free(m->llama);
    attend_gguf_free(m->gguf);
    attend_ctx_free(m->ctx);
}
