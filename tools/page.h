/* SPDX-License-Identifier: MIT */
/* The text of HTML pages, in which the data takes the place of a mark. */
#ifndef PAGE_H
#define PAGE_H

#define PAGE_MARK "/*DATA*/"

enum { PAGE_MAP, PAGE_PLAN, PAGES };
extern const char *const page_text[PAGES]; /* made of *_page.html */

#endif
