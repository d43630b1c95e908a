/* SPDX-License-Identifier: MIT */
/* WordPiece on a tiny vocabulary: what is a word, which pieces it has, and what is refused. */
#include "gen_bert.h"
#include "models.h"
#include "tap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_NAME "815-wordpiece.tmp"
static char err[400];

static void encodes(const attend_wordpiece *t, const char *text, size_t n, const char *want)
{
    char got[500] = "";
    int32_t *ids = malloc((n + 2) * sizeof *ids);
    if (!ids)
        bail("no memory");
    int64_t count = attend_wordpiece_encode(t, text, n, ids);
    for (int64_t i = 0; i < count; i++) {
        attend_str p = attend_wordpiece_piece(t, ids[i]);
        size_t at = strlen(got);
        snprintf(got + at, sizeof got - at, "%s%.*s", i ? " " : "", (int)p.n, p.s);
    }
    is_str(got, want, "tokens");
    ok(count <= (int64_t)n + 2, "%zu bytes are %d tokens", n, (int)count);
    free(ids);
}

static attend_wordpiece *open_text(const char *text, int lower)
{
    attend_wordpiece *t;
    gen_write_file(".", FILE_NAME, text, strlen(text));
    int status = attend_wordpiece_open(FILE_NAME, lower, &t, err, sizeof err);
    if (status == ATTEND_EUNSUPPORTED)
        skip_all("%s", err);
    if (status < 0)
        bail("%s", err);
    return t;
}

/* Expected from the rules of BertTokenizer, and those with accents, controls and long words seen
 * from it on its own vocabulary. */
static void test_words(void)
{
    static const char vocabulary[] =
        "[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nworld\nwor\n##ld\n,\n!\n.\n$\na\n##a\ne\ni\nistanbul\n"
        "\xe4\xb8\xad\n1\n##00\ncafe\nre\n##sume\n";
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"",                                        "[CLS] [SEP]"                                     },
        {"hello world",                             "[CLS] hello world [SEP]"                         },
        {"HELLO,World!",                            "[CLS] hello , world ! [SEP]"                     },
        {"  hello\t\n world  ",                     "[CLS] hello world [SEP]"                         },
        {"helloworld",                              "[CLS] [UNK] [SEP]"                               },
        {"r\xc3\xa9sum\xc3\xa9 Cafe\xcc\x81",       "[CLS] re ##sume cafe [SEP]"                      },
        {"\xc4\xb0stanbul",                         "[CLS] istanbul [SEP]"                            },
        {"a\xc2\xa0hello\xe3\x80\x80"
         "a",                              "[CLS] a hello a [SEP]"                           },
        {"hel\xe2\x80\x8blo \xef\xbf\xbdhello\x01", "[CLS] hello hello [SEP]"                         },
        {"hel\xfflo\xc3",                           "[CLS] hello [SEP]"                               },
        {"a\xe4\xb8\xad"
         "a",                              "[CLS] a \xe4\xb8\xad a [SEP]"                    },
        {"$100",                                    "[CLS] $ 1 ##00 [SEP]"                            },
        {"[MASK] [mask]hello[SEP]",                 "[CLS] [MASK] [UNK] [UNK] [UNK] hello [SEP] [SEP]"},
        {"aaa \xf0\x9f\x99\x82",                    "[CLS] a ##a ##a [UNK] [SEP]"                     },
    };
    attend_wordpiece *t = open_text(vocabulary, 1);
    for (size_t i = 0; i < NELEM(cases); i++)
        encodes(t, cases[i].text, strlen(cases[i].text), cases[i].want);
    encodes(t, "hel\0lo", 6, "[CLS] hello [SEP]");

    char long_word[102];
    memset(long_word, 'a', sizeof long_word);
    int32_t ids[104];
    is_int(attend_wordpiece_encode(t, long_word, 100, ids), 102,
           "a word of 100 letters has pieces");
    is_int(attend_wordpiece_encode(t, long_word, 101, ids), 3, "one of 101 letters has none");
    is_int(ids[1], 0, "it is [UNK]");
    ok(!attend_wordpiece_piece(t, -1).s && !attend_wordpiece_piece(t, attend_wordpiece_size(t)).s,
       "ids outside are no pieces");
    attend_wordpiece_free(t);

    t = open_text("[UNK]\n[CLS]\n[SEP]\nHello\r\nhello\ncaf\xc3\xa9", 0);
    encodes(t, "Hello hello caf\xc3\xa9", 17, "[CLS] Hello hello caf\xc3\xa9 [SEP]");
    attend_wordpiece_free(t);
    attend_wordpiece_free(NULL);
}

static void test_refusals(void)
{
    static const struct {
        const char *text, *sentence;
    } bad[] = {
        {"",                             FILE_NAME ": the vocabulary has 0 lines"     },
        {"[UNK]\n\n[CLS]\n[SEP]\n",      FILE_NAME ": line 2, '', is empty"           },
        {"[UNK]\n[CLS]\n[SEP]\n[UNK]\n", FILE_NAME ": line 4, '[UNK]', is there twice"},
        {"[UNK]\n[CLS]\n",               FILE_NAME ": the vocabulary has no [SEP]"    },
    };
    attend_wordpiece *t;
    for (size_t i = 0; i < NELEM(bad); i++) {
        gen_write_file(".", FILE_NAME, bad[i].text, strlen(bad[i].text));
        is_int(attend_wordpiece_open(FILE_NAME, 1, &t, err, sizeof err), ATTEND_EFORMAT,
               "it is refused");
        is_str(err, bad[i].sentence, "with this sentence");
        ok(!t, "and there is no tokenizer");
    }
    remove(FILE_NAME);
    is_int(attend_wordpiece_open("no such file", 1, &t, err, sizeof err), ATTEND_EIO, "no file");
}

int main(void)
{
    test_words();
    test_refusals();
    return done_testing();
}
