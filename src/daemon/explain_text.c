/* SPDX-License-Identifier: Apache-2.0 */
/* The answers of /explain for people; see status_text.h. */
#include <inttypes.h>
#include <string.h>

#include "status_text.h"

static void holders_put(const json_t *blob, FILE *out)
{
    char text[BYTES_TEXT_BYTES];
    const json_t *list = json_object_get(blob, "holders");
    const json_t *holder;
    size_t i;
    json_array_foreach(list, i, holder)
    {
        (void)fprintf(out, "  %-10s%-22s %s\n", i == 0 ? "also at" : "",
                      json_text_at(holder, "addr"),
                      json_is_true(json_object_get(holder, "whole"))
                          ? "all of it"
                          : bytes_text(json_number_at(holder, "bytes"), text));
    }
}

static void given_put(const json_t *pull, FILE *out)
{
    char text[BYTES_TEXT_BYTES];
    const char *name;
    json_t *value;
    bool first = true;
    json_object_foreach(json_object_get(pull, "given_bytes"), name, value)
    {
        uint64_t bytes = (uint64_t)json_integer_value(value);
        if (bytes == 0)
            continue;
        (void)fprintf(out, "%s%s %s", first ? "    given   to clients: " : ", ", name,
                      bytes_text(bytes, text));
        first = false;
    }
    if (!first)
        (void)fputc('\n', out);
}

static void sources_put(const json_t *pull, FILE *out)
{
    char text[BYTES_TEXT_BYTES];
    const json_t *peer;
    size_t i;
    (void)fprintf(out, "    came    %-31s %10s\n", "from the registry",
                  bytes_text(json_number_at(pull, "registry_bytes"), text));
    json_array_foreach(json_object_get(pull, "peers"), i, peer)
    {
        (void)fprintf(out, "            %-22s %-8s %10s in %" PRIu64 " pieces\n",
                      json_text_at(peer, "addr"), json_text_at(peer, "id"),
                      bytes_text(json_number_at(peer, "bytes"), text),
                      json_number_at(peer, "pieces"));
    }
    uint64_t others = json_number_at(pull, "other_peer_bytes");
    if (others > 0)
        (void)fprintf(out, "            %-31s %10s\n", "other peers", bytes_text(others, text));
    uint64_t around = json_number_at(pull, "around_bytes");
    if (around > 0)
        (void)fprintf(out, "            %-31s %10s\n", "the registry, around the mesh",
                      bytes_text(around, text));
}

static void reasons_put(const json_t *pull, const char *key, const char *title, FILE *out)
{
    const json_t *event;
    size_t i;
    json_array_foreach(json_object_get(pull, key), i, event)
    {
        (void)fprintf(out, "    %-8s%s, %" PRIu64 " times, last %s: %s\n", i == 0 ? title : "",
                      json_text_at(event, "reason"), json_number_at(event, "count"),
                      json_text_at(event, "last"), json_text_at(event, "meaning"));
    }
}

static void pull_put(const json_t *pull, FILE *out)
{
    char text[BYTES_TEXT_BYTES];
    const char *registry = json_text_at(pull, "registry");
    const char *repository = json_text_at(pull, "repository");
    uint64_t took_ms = json_number_at(pull, "took_ms");
    (void)fprintf(out, "  pull      %s, %s%s, %s%s%s\n", json_text_at(pull, "began"),
                  json_is_true(json_object_get(pull, "running")) ? "running for " : "took ",
                  took_ms < 1000 ? "less than 1s" : span_text(took_ms / 1000, text), registry,
                  repository[0] == '\0' ? "" : "/", repository);
    if (json_is_true(json_object_get(pull, "ahead")))
        (void)fprintf(out, "            begun ahead of the client\n");
    sources_put(pull, out);
    given_put(pull, out);
    reasons_put(pull, "registry_reads", "read", out);
    reasons_put(pull, "around", "around", out);
    const json_t *failed = json_object_get(pull, "failed_reads");
    if (failed != NULL)
        (void)fprintf(out, "    failed  %" PRIu64 " reads of the registry, last %s: %s\n",
                      json_number_at(failed, "count"), json_text_at(failed, "last"),
                      json_text_at(failed, "error"));
    if (json_object_get(pull, "around_error") != NULL)
        (void)fprintf(out, "            because: %s\n", json_text_at(pull, "around_error"));
}

static void blob_put_text(const json_t *blob, FILE *out)
{
    char size[BYTES_TEXT_BYTES], have[BYTES_TEXT_BYTES];
    const json_t *here = json_object_get(blob, "here");
    const json_t *pull;
    size_t i;
    (void)fprintf(out, "%s  %s\n", json_text_at(blob, "digest"),
                  bytes_text(json_number_at(blob, "size_bytes"), size));
    bool verified = json_is_true(json_object_get(here, "verified"));
    (void)fprintf(out, "  here      %s%s\n", bytes_text(json_number_at(here, "bytes"), have),
                  verified ? ", all of it, digest verified" : "");
    holders_put(blob, out);
    json_array_foreach(json_object_get(blob, "pulls"), i, pull)
    {
        pull_put(pull, out);
    }
}

void explain_text(const json_t *answer, FILE *out)
{
    const json_t *blobs = json_object_get(answer, "blobs");
    const json_t *blob;
    size_t i;
    const char *asked = json_text_at(answer, "asked"), *digest = json_text_at(answer, "digest");
    if (digest[0] != '\0' && strcmp(asked, digest) != 0)
        (void)fprintf(out, "%s is %s\n", asked, digest);
    json_array_foreach(blobs, i, blob)
    {
        blob_put_text(blob, out);
    }
    uint64_t unknown = json_number_at(answer, "not_pulled");
    if (unknown > 0)
        (void)fprintf(out, "%" PRIu64 " further blobs of it were not asked for here\n", unknown);
    if (json_array_size(blobs) == 0)
        (void)fprintf(out, "no client of this node asked for anything since the agent started\n");
}
