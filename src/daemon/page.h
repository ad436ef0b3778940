/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The status page: `/` is one HTML document without any other resource
 * (src/daemon/page/status.html, embedded by the Makefile), `/page.json` what it asks for every
 * second while somebody looks.
 *
 * Who sees what: the admin port may be open to the network, so what it gives names digests by their
 * first 12 digits only, and neither registries nor repositories (HTTP-7). The control socket, which
 * root and the agent's own user alone may ask, gives the same page and names them. Credentials are
 * in none of it.
 *
 * An answer has at most PAGE_JSON_BYTES_MAX whatever the mesh's size, and costs a millisecond at
 * 1,000 members. Each list is cut at its maximum below.
 */
#ifndef SHOAL_DAEMON_PAGE_H
#define SHOAL_DAEMON_PAGE_H

#include <jansson.h>

#include "agent.h"
#include "http_server.h"

#define PAGE_JSON_BYTES_MAX    (256 * 1024)
#define PAGE_MEMBERS_MAX       4096 /* looked at; further ones are only counted */
#define PAGE_ZONES_MAX         40   /* by themselves; the others together */
#define PAGE_TROUBLE_MAX       24   /* members that are not alive, by address */
#define PAGE_SESSIONS_MAX      24   /* those with most bytes... */
#define PAGE_SESSIONS_SEEN_MAX 256  /* ...of so many */
#define PAGE_SWARMS_MAX        16
#define PAGE_PULLS_MAX         32

/* The document with its headers: a policy that lets it load, run and ask nothing but itself. */
void page_answer(struct exchange *exchange);
/* What it asks for, as JSON; `names` as above. */
void page_json_answer(struct agent *agent, struct exchange *exchange, bool names);
/*
 * That JSON, to be freed with free(); NULL without memory. Keys: version, cluster, id, addr,
 * topology, uptime_us, now, alone, outsider ("" or where what keeps coming without our secret is),
 * names; arrived, given, sent (bytes since the start, by source);
 * reads (reads of the registry by reason), around (answers around the mesh); words (what reasons
 * mean); members {known, looked_at, zones, trouble, trouble_more}; sessions; swarms; pulls; cache.
 */
char *page_json(struct agent *agent, bool names);
/* The value of Content-Security-Policy: the hashes of the document's own style and script. */
#define PAGE_POLICY_BYTES 448
void page_policy(char out[PAGE_POLICY_BYTES]);

/* The document, as it is in the program. */
extern const unsigned char page_html[];
extern const size_t page_html_bytes;

/* ---- parts of page_json, each a new reference or NULL without memory ---- */

/* page_members.c: members by zone, with a letter each in order of their ids: '*' this node, 'a'
 * alive, 's' suspect, 'l' leaving, 'g' dead or left. */
json_t *page_members(const struct gossip *gossip, const struct node_id *self);
/* A node for a row of a list: addr, id; zone and distance, "" each if it is no member now. */
json_t *page_member_row(const struct gossip *gossip, const struct node_id *id,
                        const struct peer_addr *addr);
/* page_pulls.c: the last pulls, newest first, and what the reasons in them mean. */
json_t *page_pulls(struct agent *agent, bool names);
json_t *page_words(void);
/* Text from anywhere as a JSON string; what is no UTF-8 becomes "?". */
json_t *page_text(const char *text);
/* Bytes and counts; JSON's integers end at INT64_MAX here. */
json_t *page_number(uint64_t value);
/* "sha256:" and the first 12 digits; all of them with `names`. */
json_t *page_digest(const struct digest *digest, bool names);

#endif
