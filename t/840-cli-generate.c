/* SPDX-License-Identifier: MIT */
/* The program: `attend generate`, `attend logits` and `attend plan -m` on a tiny generated model:
 * what they do, and what they refuse, in which words, with nothing half-written left. */
#include "attend.h"
#include "gen_gguf.h"
#include "os.h"
#include "program.h"
#include "tap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLDER "840-cli-generate.tmp"
#define HELLO "generate -m tiny.gguf -p 'hello world' "
#define FILES "cut.gguf file tiny.gguf wide.gguf "

enum { V = GEN_VOCABULARY };

static char err[400];

/* ---- files ---- */

static attend_array read_file(const char *name)
{
    char path[100];
    attend_array a = {0};
    snprintf(path, sizeof path, FOLDER "/%s", name);
    if (attend_npy_read(path, &a, err, sizeof err) < 0)
        diag("%s", err);
    return a;
}

static void write_tokens(const char *name, attend_type type, int64_t rows, int64_t n,
                         const void *data)
{
    char path[100];
    attend_array a = {.type = type,
                      .shape = rows ? ATTEND_SHAPE(rows, n) : ATTEND_SHAPE(n),
                      .data = (void *)(uintptr_t)data,
                      .bytes = (rows ? rows : 1) * n * (int64_t)attend_type_size(type)};
    snprintf(path, sizeof path, FOLDER "/%s", name);
    if (attend_npy_write(path, &a, err, sizeof err) < 0)
        bail("%s", err);
}

static void remove_file(const char *name)
{
    char path[100];
    snprintf(path, sizeof path, FOLDER "/%s", name);
    if (remove(path) != 0)
        diag("there is no %s", path);
}

static void write_bytes(const char *name, const void *data, size_t n)
{
    char path[100];
    snprintf(path, sizeof path, FOLDER "/%s", name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f) != 0)
        bail("cannot write %s", path);
}

/* A model, the same cut short, the same that says it can take very long texts, and no model at all.
 */
static void write_models(void)
{
    struct gen_model m;
    size_t size;
    gen_model_init(&m);
    m.type = ATTEND_Q4_1;
    unsigned char *data = gen_model_make(&m, &size);
    write_bytes("tiny.gguf", data, size);
    write_bytes("cut.gguf", data, size / 2);
    free(data);
    m.context = 1 << 30;
    gen_model_write(&m, FOLDER "/wide.gguf");
    write_bytes("file", "text", 4);
}

/* ---- what they do ---- */

static void good(int status, const char *what)
{
    if (!ok(status == 0, "%s", what))
        diag("exit %d: %s", status, program_err);
}

static void test_generate(void)
{
    static char first[sizeof program_out];
    good(program_run(HELLO "-n 12"), "generate runs");
    snprintf(first, sizeof first, "%s", program_out);
    size_t n = strlen(first);
    ok(n > 1 && first[n - 1] == '\n', "stdout ends in a newline");
    ok(strstr(program_err, " of prompt, ") && strstr(program_err, " a second\n"),
       "stderr tells how fast it was");
    good(program_run(HELLO "-n 12 --quiet"), "--quiet");
    is_str(program_out, first, "gives the same text");
    is_str(program_err, "", "and no more");
    good(program_run(HELLO "-n 12 --quiet --device ref"), "--device ref");
    is_str(program_out, first, "gives the same text");
    good(program_run(HELLO "-n 12 --quiet --temp 0.9 --top-k 1"), "the likeliest of one");
    is_str(program_out, first, "is the same text");
    good(program_run(HELLO "-n 0 --quiet"), "-n 0");
    is_str(program_out, "\n", "gives no text");
    good(program_run(HELLO "-n 12 --quiet --temp 2 --seed 1"), "--temp 2");
    ok(strcmp(program_out, first) != 0, "is another text");
    snprintf(first, sizeof first, "%s", program_out);
    good(program_run(HELLO "-n 12 --quiet --temp 2 --seed 1"), "the same seed");
    is_str(program_out, first, "gives the same text");
    good(program_run(HELLO "-n 12 --quiet --temp 2 --seed 2"), "another seed");
    ok(strcmp(program_out, first) != 0, "gives another");
    good(program_run("generate -m tiny.gguf --chat -p hello -n 3 --quiet"), "--chat");
    program_left(FILES);
}

/* The numbers of a list in JSON, to ids; how many. */
static int read_list(const char *name, int32_t *ids)
{
    char key[40];
    int n = 0;
    snprintf(key, sizeof key, "\"%s\": [", name);
    const char *at = strstr(program_out, key);
    for (at = at ? at + strlen(key) : "]"; *at != ']' && n < 100; n++) {
        char *end;
        ids[n] = (int32_t)strtol(at, &end, 10);
        at = end + strspn(end, ", ");
    }
    return n;
}

static double difference(const attend_array *a, const attend_array *b)
{
    double worst = 0;
    if (!a->data || !b->data || a->bytes != b->bytes)
        return INFINITY;
    for (int64_t i = 0; i < a->bytes / 4; i++)
        worst = fmax(worst, fabs((double)((float *)a->data)[i] - (double)((float *)b->data)[i]));
    return worst;
}

/* Rows of a file, and whether they are those of another, within the errors of f32 (t/830). */
static void same_rows(const char *got, const char *want, int64_t rows, double bound)
{
    attend_array a = read_file(got), b = read_file(want);
    ok(a.shape.rank == 2 && a.shape.dim[0] == rows && a.shape.dim[1] == V && a.type == ATTEND_F32,
       "%s has a row for each token", got);
    double d = difference(&a, &b);
    ok(d <= bound, "%s holds the rows of %s: %.2g", got, want, d);
    attend_free(a.data);
    attend_free(b.data);
}

/* Half a unit of the last place of a key or value is a hundred such units of a logit at most. */
static void test_caches(int prompt, int n)
{
    static const struct {
        const char *kv;
        double bound;
    } types[] = {
        {"f16",  100 * 0x1p-11},
        {"bf16", 100 * 0x1p-8 },
        {"q8_0", 100 * 0x1p-8 },
        {"fp8",  100 * 0x1p-4 },
        {"q4_0", 100 * 0x1p-4 },
    };
    for (size_t i = 0; i < NELEM(types); i++) {
        const char *kv = types[i].kv;
        good(program_run("logits -m tiny.gguf --tokens t32.npy --from %d -o l.npy --kv %s", prompt,
                         kv),
             kv);
        same_rows("l.npy", "rows.npy", n, types[i].bound);
        good(program_run("logits -m tiny.gguf --tokens t32.npy --from %d -o l.npy --step --kv %s",
                         prompt, kv),
             "--step");
        same_rows("l.npy", "rows.npy", n, types[i].bound);
    }
    good(program_run(HELLO "-n 12 --kv q4_0 --json"), "generate --kv q4_0");
}

/* The logits that tokens were chosen from are those that `attend logits` gives for these tokens. */
static void test_logits(void)
{
    static int32_t ids[200];
    static int64_t wide[200];
    static uint16_t narrow[200];
    good(program_run(HELLO "-n 12 --json --logits rows.npy"), "--json");
    is_str(program_err, "", "says nothing else");
    int prompt = read_list("prompt_ids", ids), n = read_list("ids", ids + prompt);
    ok(prompt > 0 && n > 0 && n <= 12, "%d ids of the prompt, %d new ones", prompt, n);
    ok(strstr(program_out, "\"text\": \"") && strstr(program_out, "\"stop\": \"") &&
           strstr(program_out, "\"prompt_tokens_per_second\": ") &&
           strstr(program_out, "\"generation_tokens_per_second\": "),
       "text, why it ended, and how fast it was");
    int all = prompt + n - 1;
    for (int i = 0; i < all; i++) {
        wide[i] = ids[i];
        narrow[i] = (uint16_t)ids[i];
    }
    write_tokens("t32.npy", ATTEND_I32, 0, all, ids);
    write_tokens("t64.npy", ATTEND_I64, 0, all, wide);
    write_tokens("t16.npy", ATTEND_BF16, 0, all, narrow); /* uint16, to the file */
    good(program_run("logits -m tiny.gguf --tokens t32.npy --from %d -o l.npy", prompt), "logits");
    same_rows("l.npy", "rows.npy", n, 1e-4);
    good(program_run("logits -m tiny.gguf --tokens t64.npy --from %d -o l.npy --step", prompt),
         "--step");
    same_rows("l.npy", "rows.npy", n, 1e-4);
    good(program_run("logits -m tiny.gguf --tokens t16.npy --from %d -o l.npy --device ref --json",
                     prompt),
         "--device ref");
    same_rows("l.npy", "rows.npy", n, 1e-4);
    ok(strstr(program_out, "{\"type\": \"f32\", \"shape\": ["), "--json tells of the result");
    test_caches(prompt, n);
    good(program_run("logits -m tiny.gguf --tokens t32.npy --from %d -o l.npy", all), "one row");
    attend_array a = read_file("l.npy");
    is_int(a.shape.dim[0], 1, "of the last token");
    attend_free(a.data);
    remove_file("l.npy");
    remove_file("rows.npy");
    remove_file("t32.npy");
    remove_file("t64.npy");
    remove_file("t16.npy");
    program_left(FILES);
}

static void test_plan(void)
{
    good(program_run("plan -m tiny.gguf --tokens 100"), "plan -m");
    ok(strstr(program_out, "rows 17 to 100: "), "up to the number of tokens");
    ok(strstr(program_out, "attention f32") && !strstr(program_out, "softmax"), "with attention");
    good(program_run("plan generate -m tiny.gguf -p hello -n 3"), "plan generate");
    ok(strstr(program_out, "attention f32") != NULL, "has the same");
}

/* ---- what they refuse ---- */

static void refused(int status, const char *args, const char *sentence)
{
    program_run("%s", args);
    program_said(status, sentence);
    is_str(program_out, "", "nothing else is said");
}

static void test_command_lines(void)
{
    refused(2, "generate -p hello", "attend generate: -m is missing: which model?");
    refused(2, "generate -m tiny.gguf",
            "attend generate: -p is missing: what does the text begin with?");
    refused(2, HELLO "-n -1", "attend generate: -n: \"-1\" is not a number from 0 to 2147483647");
    refused(2, HELLO "-n 99999999999",
            "attend generate: -n: \"99999999999\" is not a number from 0 to 2147483647");
    refused(2, HELLO "--ctx 0",
            "attend generate: --ctx: \"0\" is not a number from 1 to 2147483647");
    refused(2, HELLO "--kv f64",
            "attend generate: --kv: \"f64\" is not one of f32, f16, bf16, q8_0, q4_0, fp8");
    refused(2, HELLO "--temp nan",
            "attend generate: --temp: \"nan\" is not a finite number from 0 to 1e+06");
    refused(2, "logits -m tiny.gguf --from 1 -o l.npy",
            "attend logits: --tokens is missing: which tokens?");
    refused(2, "logits -m tiny.gguf --tokens t.npy -o l.npy",
            "attend logits: --from is missing: after how many tokens does the first row come?");
    refused(2, "logits -m tiny.gguf --tokens t.npy --from 1",
            "attend logits: -o is missing: where do the logits go?");
    refused(2, "logits -m tiny.gguf --tokens t.npy --from 0 -o l.npy",
            "attend logits: --from: \"0\" is not a number from 1 to 2147483647");
    program_left(FILES);
}

static void test_bad_models(void)
{
    refused(1, "generate -m none.gguf -p hello",
            "attend generate: cannot open \"none.gguf\": No such file or directory");
    refused(1, "generate -m . -p hello", "attend generate: \".\" is not a regular file");
    refused(1, "generate -m cut.gguf -p hello",
            "attend generate: cut.gguf: tensor 'blk.0.attn_output.weight' of 2560 bytes at offset "
            "26304 lies outside of the file, which has 26576 bytes of tensors");
    refused(1, "generate -m file -p hello",
            "attend generate: file: this is no GGUF file: it does not start with \"GGUF\"");
    is_int(program_run(HELLO "--device none"), 1, "a device that is not here");
    ok(strstr(program_err, "attend generate: there is no device 'none'; here are ref, "),
       "the devices that are here are named");
    is_int(program_run("check --device none"), 1, "so for attend check,");
    ok(strstr(program_err, "attend check: there is no device 'none'; here are ref, ") &&
           !*program_out,
       "once");
}

static void test_prompts(void)
{
    refused(1, "generate -m tiny.gguf -p 'a\xff'",
            "attend generate: the prompt: the text is not UTF-8: byte 1 of 2 is 0xff, which cannot "
            "stand there");
    refused(1, "generate -m tiny.gguf --chat -p '\xc3('",
            "attend generate: the prompt: the text is not UTF-8: byte 0 of 2 is 0xc3, which cannot "
            "stand there");
    refused(1, "generate -m tiny.gguf -p ''",
            "attend generate: the prompt is empty, and this model has no start token");
    refused(1, HELLO "--ctx 8 -n 7",
            "attend generate: --ctx is 8, and prompt and -n need 9 tokens");
    refused(1, HELLO "-n 2147483647",
            "attend generate: prompt and -n need a context of 2147483649 tokens, but the model was "
            "made for 1 to 256");
    refused(1, HELLO "--ctx 1000",
            "attend generate: a context of 1000 tokens, but the model was made for 1 to 256");
}

static void test_tokens(void)
{
    static const int32_t ids[] = {5, V, 7}, negative[] = {5, -6};
    static const float floats[] = {1, 2};
    const char *logits = "logits -m tiny.gguf --tokens t.npy --from 1 -o l.npy";
    write_bytes("l.npy", "as it was", 9);
    write_tokens("t.npy", ATTEND_I32, 0, 3, ids);
    refused(1, logits, "attend logits: t.npy: token 1 is 304, outside of the vocabulary of 304");
    refused(1, "logits -m tiny.gguf --tokens t.npy --from 4 -o l.npy",
            "attend logits: t.npy: --from is 4, and there are 3 tokens");
    refused(1, "logits -m tiny.gguf --tokens t.npy --from 1 --ctx 2 -o l.npy",
            "attend logits: --ctx is 2, and --tokens need 3 tokens");
    write_tokens("t.npy", ATTEND_I32, 3, 1, ids);
    refused(1, logits, "attend logits: t.npy: want one axis with at least one token");
    write_tokens("t.npy", ATTEND_I32, 0, 2, negative);
    refused(1, logits, "attend logits: t.npy: token 1 is -6");
    write_tokens("t.npy", ATTEND_I32, 0, 0, ids);
    refused(1, logits, "attend logits: t.npy: want one axis with at least one token");
    write_tokens("t.npy", ATTEND_F32, 0, 2, floats);
    refused(1, logits, "attend logits: t.npy: the type is f32, want integers");
    refused(1, "logits -m tiny.gguf --tokens none.npy --from 1 -o l.npy",
            "attend logits: cannot open \"none.npy\": No such file or directory");
    program_left("cut.gguf file l.npy t.npy tiny.gguf wide.gguf ");
    char text[10] = "";
    FILE *f = fopen(FOLDER "/l.npy", "rb");
    ok(f && fread(text, 1, 9, f) == 9 && strcmp(text, "as it was") == 0, "the output is as it was");
    if (f)
        fclose(f);
    remove_file("l.npy");
}

static void test_outputs(void)
{
    static const int32_t ids[] = {5, 6};
    write_tokens("t.npy", ATTEND_I32, 0, 2, ids);
    refused(1, "logits -m tiny.gguf --tokens t.npy --from 1 -o none/l.npy",
            "attend logits: cannot write \"none/l.npy\": No such file or directory");
    program_run(HELLO "-n 1 --quiet --logits none/l.npy");
    program_said(1, "attend generate: cannot write \"none/l.npy\": No such file or directory");
    program_run("logits -m tiny.gguf --tokens t.npy --from 1 -o /dev/full");
    is_int(strstr(program_err, "/dev/full") ? 1 : 0, 1, "a full disk is named");
    program_run(HELLO "-n 1 --quiet >/dev/full");
    program_said(1, "attend: cannot write the standard output");
    remove_file("t.npy");
    program_left(FILES);
}

static void test_memory(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip("sanitizers do not run in little memory");
#else
    program_limit(1 << 22);
    refused(1, "generate -m wide.gguf -p hello --ctx 1000000000",
            "attend generate: no memory for 512000000000 bytes of keys and values (1000000000 "
            "positions)");
    program_limit(0);
#endif
}

/* The second turn reads only what is new, so the first answer is as if it had been asked for alone.
 */
static void test_interactive(void)
{
    static char alone[2000];
    static const char said[] = "hello\n/stats\n/what\nworld\n/reset\nhello\n/quit\nnever\n";
    program_run("generate -m tiny.gguf --chat -p hello -n 3 --quiet");
    snprintf(alone, sizeof alone, "%.1500s", program_out);
    write_bytes("said", said, strlen(said));
    is_int(program_run("generate -m tiny.gguf --interactive -n 3 < said"), 0, "a conversation");
    ok(strncmp(program_out, alone, strlen(alone)) == 0, "begins as one turn alone does");
    const char *stats = strstr(program_out, "1 turns; ");
    ok(stats && strstr(stats, " of 256 tokens of context; read "), "has /stats");
    ok(strstr(program_out, "There is no /what.\n/stats ") != NULL, "and tells its commands");
    size_t n = strlen(program_out), a = strlen(alone);
    ok(n > a && strcmp(program_out + n - a, alone) == 0, "after /reset it begins anew");
    is_int(program_run("generate -m tiny.gguf --interactive --ctx 60 < said"), 0,
           "a small context");
    ok(strstr(program_out, "(The context is full: /reset begins anew.)") != NULL, "is told of");
    refused(2, "generate -m tiny.gguf --interactive -p x",
            "attend generate: -p does not go with --interactive");
    remove_file("said");
}

static void test_plan_page(void)
{
    good(program_run("plan attention:f32:b1h2g1q5k9d8 --html --device ref"), "a plan as a page");
    ok(strncmp(program_out, "<!DOCTYPE html>", 15) == 0 && strstr(program_out, "</html>\n") &&
           strstr(program_out, "const plan = {\"device\": \"ref\""),
       "is whole, with the plan inside");
}

/* What is absent and can be installed has a hint. */
static void test_devices(void)
{
    int absent = 0, hints = 0;
    good(program_run("devices --json"), "devices");
    for (char *line = strtok(program_out, "\n"); line; line = strtok(NULL, "\n")) {
        bool gpu = strstr(line, "\"opencl") || strstr(line, "\"cuda");
        absent += gpu && strstr(line, "\"present\": false");
        hints += strstr(line, "\"hint\": ") != NULL;
    }
    is_int(hints, absent, "a backend that is absent has a hint");
    refused(2, "devices --jsno", "attend devices: there is no flag --jsno; did you mean --json?");
    refused(2, "devics", "attend: there is no verb devics; did you mean devices?");
}

int main(void)
{
    program_init(FOLDER);
    write_models();
    test_generate();
    test_logits();
    test_plan();
    test_command_lines();
    test_bad_models();
    test_prompts();
    test_tokens();
    test_outputs();
    test_interactive();
    test_plan_page();
    test_devices();
    test_memory();
    program_fini();
    return done_testing();
}
