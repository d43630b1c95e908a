/* SPDX-License-Identifier: MIT */
/* The words of a text, by the rules that the "smollm" vocabularies were learned with. */
#ifndef AT_WORDS_H
#define AT_WORDS_H

#include <stdbool.h>
#include <stddef.h>

/* False: built without utf8proc, so letters and numbers are not known. */
bool at_words_known(void);

/* The length in bytes of the first word of n > 0 bytes of UTF-8.  Every byte belongs to a word. */
size_t at_words_next(const unsigned char *p, size_t n);

#endif
