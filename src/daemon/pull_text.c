/* SPDX-License-Identifier: Apache-2.0 */
/* Bars and lines; see pull_text.h. */
#include "pull_text.h"

#include <string.h>

#include "status_text.h"

#define BAR_CELLS   30
#define RUNNING_MAX 8 /* blobs shown at once; the agent brings in fewer */
#define NAME_BYTES  13

static bool is(const json_t *object, const char *state)
{
    return strcmp(json_text_at(object, "state"), state) == 0;
}

/* The first hex digits of a digest. */
static const char *short_name(const json_t *blob, char out[NAME_BYTES])
{
    const char *digest = json_text_at(blob, "digest");
    const char *colon = strchr(digest, ':');
    (void)snprintf(out, NAME_BYTES, "%.12s", colon == NULL ? digest : colon + 1);
    return out;
}

static const char *bar(uint64_t have, uint64_t of, char out[BAR_CELLS + 1])
{
    size_t full = have >= of ? BAR_CELLS : (size_t)((double)have / (double)of * BAR_CELLS);
    for (size_t i = 0; i < BAR_CELLS; i++)
        out[i] = i < full ? '#' : '.';
    out[BAR_CELLS] = '\0';
    return out;
}

/* "12 MiB of 30 MiB  (peers 10 MiB, registry 2 MiB)" */
static void amounts(const json_t *object, FILE *out)
{
    char have[BYTES_TEXT_BYTES], of[BYTES_TEXT_BYTES];
    char peer[BYTES_TEXT_BYTES], origin[BYTES_TEXT_BYTES];
    (void)fprintf(out, "%s of %s  (peers %s, registry %s)",
                  bytes_text(json_number_at(object, "have_bytes"), have),
                  bytes_text(json_number_at(object, "bytes"), of),
                  bytes_text(json_number_at(object, "peer_bytes"), peer),
                  bytes_text(json_number_at(object, "origin_bytes"), origin));
}

static void bar_line(struct pull_text *text, const json_t *object, const char *name)
{
    char cells[BAR_CELLS + 1];
    (void)fprintf(
        text->out, "  %-12s [%s] ", name,
        bar(json_number_at(object, "have_bytes"), json_number_at(object, "bytes"), cells));
    amounts(object, text->out);
    (void)fputc('\n', text->out);
    text->lines++;
}

/* "nodes  3 of 10 have it, 2 running, 1 refused, 0 failed"; nothing if there are none. */
static bool nodes_line(const json_t *pull, FILE *out)
{
    const json_t *nodes = json_object_get(pull, "nodes");
    unsigned all = (unsigned)json_number_at(nodes, "all");
    if (all == 0)
        return false;
    (void)fprintf(
        out, "  other nodes  %u of %u have it, %u running, %u refused, %u failed\n",
        (unsigned)json_number_at(nodes, "done"), all, (unsigned)json_number_at(nodes, "running"),
        (unsigned)json_number_at(nodes, "refused"), (unsigned)json_number_at(nodes, "failed"));
    return true;
}

static void draw(struct pull_text *text, const json_t *pull)
{
    const json_t *blobs = json_object_get(pull, "blobs"), *blob;
    size_t i;
    if (text->lines > 0)
        (void)fprintf(text->out, "\033[%uA\033[J", text->lines); /* over what was drawn last */
    text->lines = 0;
    json_array_foreach(blobs, i, blob)
    {
        char name[NAME_BYTES];
        if (is(blob, "running") && text->lines < RUNNING_MAX)
            bar_line(text, blob, short_name(blob, name));
    }
    if (json_array_size(blobs) == 0) {
        (void)fprintf(text->out, "  %s\n", json_text_at(pull, "state"));
        text->lines++;
    } else {
        bar_line(text, pull, "all");
    }
    text->lines += nodes_line(pull, text->out);
}

/* A line for each look that finds more blobs here than the one before. */
static void tell(struct pull_text *text, const json_t *pull)
{
    const json_t *blobs = json_object_get(pull, "blobs"), *blob;
    size_t i, done = 0;
    json_array_foreach(blobs, i, blob) done += is(blob, "done");
    size_t nodes = json_number_at(json_object_get(pull, "nodes"), "done");
    if (nodes != text->told_nodes)
        (void)nodes_line(pull, text->out);
    text->told_nodes = nodes;
    if (done == text->told_done)
        return;
    text->told_done = done;
    (void)fprintf(text->out, "blobs %zu of %zu  ", done, json_array_size(blobs));
    amounts(pull, text->out);
    (void)fputc('\n', text->out);
}

void pull_text_show(struct pull_text *text, const json_t *pull)
{
    if (text->terminal)
        draw(text, pull);
    else
        tell(text, pull);
    (void)fflush(text->out);
}

void pull_text_end(struct pull_text *text, const json_t *pull)
{
    char took[BYTES_TEXT_BYTES];
    pull_text_show(text, pull);
    if (!is(pull, "done"))
        return;
    (void)fprintf(text->out, "%s %s: here in %s\n", json_text_at(pull, "image"),
                  json_text_at(pull, "digest"),
                  span_text(json_number_at(pull, "took_ms") / 1000, took));
}
