/* SPDX-License-Identifier: MIT */
/* Chat templates are programs in a language that is not here.  The common ones are recognised by
 * text that only they have; the others are refused, because a wrong wrapping is worse than none. */
#include "models.h"
#include "say.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The first row whose mark the template has is its kind; before NULL: known and not supported. */
/* clang-format off */
static const struct kind {
    const char *name, *mark;
    const char *before, *after; /* what the user says first stands between them */
    const char *later; /* instead of before, in turns that follow an answer: the answer ends here */
    bool trim;                  /* white space around it is dropped */
} kinds[] = {
    {"SmolLM2", "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>",
     "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
     "<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n",
     "<|im_end|>\n<|im_start|>user\n", false},
    {"ChatML with a system text of its own", "<|im_start|>system", NULL, NULL, NULL, false},
    {"ChatML", "<|im_start|>' + message['role']",
     "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n",
     "<|im_end|>\n<|im_start|>user\n", false},
    {"Llama 3.1", "Cutting Knowledge Date", NULL, NULL, NULL, false},
    {"Llama 3", "<|start_header_id|>",
     "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
     "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
     "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n", true},
    {"Llama 2 or Mistral", "[INST]", NULL, NULL, NULL, false},
    {"Gemma", "<start_of_turn>", NULL, NULL, NULL, false},
    {"Zephyr or Phi 3", "<|assistant|>", NULL, NULL, NULL, false},
    {"DeepSeek", "<\xef\xbd\x9cUser\xef\xbd\x9c>", NULL, NULL, NULL, false},
};
/* clang-format on */

static bool contains(attend_str text, const char *mark)
{
    size_t n = strlen(mark);
    for (size_t i = 0; i + n <= text.n; i++)
        if (memcmp(text.s + i, mark, n) == 0)
            return true;
    return false;
}

static int find_kind(const attend_gguf *g, const struct kind **kind, char *err, size_t errlen)
{
    attend_str text;
    int got = attend_gguf_str(g, "tokenizer.chat_template", &text, err, errlen);
    if (got < 0)
        return got;
    if (!got)
        return at_say(err, errlen, ATTEND_EUNSUPPORTED, "the model has no chat template");
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        if (!contains(text, kinds[i].mark))
            continue;
        *kind = &kinds[i];
        return kinds[i].before
                   ? 0
                   : at_say(err, errlen, ATTEND_EUNSUPPORTED,
                            "the model's chat template, %s, is not supported", kinds[i].name);
    }
    return at_say(err, errlen, ATTEND_EUNSUPPORTED,
                  "the model's chat template is of no known kind; it starts with '%.*s'",
                  (int)(text.n < 60 ? text.n : 60), text.s);
}

static int64_t wrap(const attend_gguf *g, bool first, const char *user, size_t n, char **out,
                    char *err, size_t errlen)
{
    const struct kind *kind = NULL;
    *out = NULL;
    int status = find_kind(g, &kind, err, errlen);
    if (status < 0)
        return status;
    for (; kind->trim && n > 0 && isspace((unsigned char)*user); n--)
        user++;
    while (kind->trim && n > 0 && isspace((unsigned char)user[n - 1]))
        n--;
    const char *head = first ? kind->before : kind->later;
    size_t before = strlen(head), after = strlen(kind->after);
    char *text = n < SIZE_MAX / 2 ? malloc(before + n + after + 1) : NULL;
    if (!text)
        return at_say(err, errlen, ATTEND_ENOMEM, "no memory for a prompt of %zu bytes", n);
    memcpy(text, head, before);
    memcpy(text + before, user, n);
    memcpy(text + before + n, kind->after, after + 1);
    *out = text;
    return (int64_t)(before + n + after);
}

int64_t attend_chat_wrap(const attend_gguf *g, const char *user, size_t n, char **out, char *err,
                         size_t errlen)
{
    return wrap(g, true, user, n, out, err, errlen);
}

int64_t attend_chat_wrap_later(const attend_gguf *g, const char *user, size_t n, char **out,
                               char *err, size_t errlen)
{
    return wrap(g, false, user, n, out, err, errlen);
}
