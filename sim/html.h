/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text that is safe where it lands: strings escaped for HTML, JSON and CSV, sizes and times as
 * people write them, and the frame of a page that needs nothing beside it (style and script inside,
 * no address of anything outside). What is on the page is the callers' business.
 */
#ifndef SHOAL_SIM_HTML_H
#define SHOAL_SIM_HTML_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "err.h"
#include "report.h"

/* Writes a string as HTML text or inside an attribute's double quotes. NULL writes nothing; what
 * HTML does not allow (control characters, bytes that are no UTF-8) becomes U+FFFD. */
void html_text(FILE *to, const char *text);
/* The same, with an ellipsis in place of what is longer. */
void html_text_cut(FILE *to, const char *text, size_t characters_max);
/* A string with its quotes, as JSON (RFC 8259). NULL is "". 0 or E_NO_MEMORY. */
MUST_USE int html_json(FILE *to, const char *text);
/* One field of CSV (RFC 4180 §2), quoted where it must be. */
void html_csv(FILE *to, const char *text);
/* 0, or E_IO if a write on `to` failed. */
MUST_USE int html_done(FILE *to);

/* Room for the texts below. */
#define HTML_NUMBER_BYTES 48
/* "2.00 GiB"; powers of 1024. */
const char *html_bytes(char out[HTML_NUMBER_BYTES], double bytes);
/* "34 ms", "0.35 s", "18.2 s", "10 min 32 s", "2 h 05 min". */
const char *html_time(char out[HTML_NUMBER_BYTES], double seconds);
/* "8.4 Gbit/s", of bytes per second. */
const char *html_rate(char out[HTML_NUMBER_BYTES], double bytes_per_s);
/* "1,024" */
const char *html_count(char out[HTML_NUMBER_BYTES], uint64_t count);
/* As many decimals as make three or four digits: "0.034", "1.01", "28.1", "5120". */
const char *html_number(char out[HTML_NUMBER_BYTES], double value);

/* Everything before the page's own text: head, style, title line. Strings are escaped. */
void html_begin(FILE *to, const char *title, const char *description);
/* `lead` in large letters, then the rest of the sentence; `key` names the sentence for programs,
 * `bad` is for what went wrong. */
void html_sentence(FILE *to, const char *key, bool bad, const char *lead, const char *rest);
/* A figure's frame. `id` is a name of [a-z-]. Between the two comes the plot. */
void html_figure_begin(FILE *to, const char *id, const char *title);
void html_figure_end(FILE *to, const char *caption);
/* A table of keys and values under a heading, and the command that repeats the run. */
void html_settings(FILE *to, const struct report_setting *settings, size_t count,
                   const char *command);
/* Script and the end of the page. */
void html_end(FILE *to);

#endif
