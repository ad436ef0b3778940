/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which addresses a request to the outside may reach (ORG-2). Judges the address really connected
 * to, never a name, so DNS rebinding and odd spellings of a number change nothing.
 */
#ifndef SHOAL_REGISTRY_ADDRESS_H
#define SHOAL_REGISTRY_ADDRESS_H

#include "registry.h"

enum address_class {
    ADDRESS_PUBLIC = 1,
    ADDRESS_PRIVATE,  /* loopback, RFC 1918, shared (RFC 6598), unique local: by address_ranges */
    ADDRESS_METADATA, /* a cloud's credential service: see allow_metadata of struct fetch_request */
    ADDRESS_REFUSED,  /* unspecified, link-local, multicast, reserved: never */
};

/*
 * Class of an IPv6 address, or of an IPv4 address in its v4-mapped form. Forms that carry an IPv4
 * address (mapped, compatible, NAT64, 6to4) are judged as that address.
 */
enum address_class address__class(const uint8_t ip[16]);

#endif
