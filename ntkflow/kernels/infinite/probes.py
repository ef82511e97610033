"""Trained scales (of normalization): what they add to the derivative of a field."""

from ntkflow.kernels.infinite.fields import Known, Mapped, Node, Probe, Scale, Sum, Unfollowed

Scaled = tuple[list[Known], Probe]


def split_probes(node: Node) -> tuple[Node, list[Scaled]]:
    """A Gaussian node without its probes, and the probes with the known factors before them."""
    if isinstance(node, Probe):
        return Sum(()), [([], node)]
    if isinstance(node, Scale):
        plain, probes = split_probes(node.node)
        if not probes:
            return node, []
        plain = Scale(node.known, plain) if plain.leaves else plain
        return plain, [([node.known, *knowns], p) for knowns, p in probes]
    if isinstance(node, Sum):
        parts = [split_probes(term) for term in node.terms]
        probes = [probe for _, found in parts for probe in found]
        if not probes:
            return node, []
        return Sum(tuple(plain for plain, _ in parts if plain.leaves)), probes
    if isinstance(node, Mapped) and any(split_probes(inner)[1] for inner in node.nodes):
        raise Unfollowed("a trained scale, then a map of positions, then a function", node.origin)
    return node, []


def proportion(node: Node, to: Node) -> list[Known] | None:
    """Known factors whose product times `to` is the value of `node`; None where it is not."""
    if node is to:
        return []
    if isinstance(node, Scale):
        inner = proportion(node.node, to)
        return None if inner is None else [node.known, *inner]
    if isinstance(node, Sum):
        varying = [term for term in node.terms if not term.certain]
        return proportion(varying[0], to) if len(varying) == 1 else None
    return None
