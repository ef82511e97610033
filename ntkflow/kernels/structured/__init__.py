"""Structured derivatives: kernels from the factors of Jacobians that are never formed.

Novak, Sohl-Dickstein and Schoenholz (2022), "Fast finite width neural tangent kernel", section 3.3.
`entrances` walks over the traced network and finds where parameters meet data; `views` says how a
parameter is seen there, `rules` what its Jacobian is a product of; `factors` multiplies in the
cheapest order, and `method` puts them together.
"""
