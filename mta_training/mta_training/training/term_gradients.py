"""How much each term of the loss moves what is exported, and weights that follow from that.

A term's `gradient` is the norm of its gradient over the network and the language model's adapter;
its `share` that over the detector alone, in units of the detection loss's.  What only training
has (Phi_BLA, prompts, further heads) counts in neither: an alignment could otherwise look heavy
that reaches nothing but its own head.
"""

import torch

from mta_training.runs.run_log import ALIGNED


class TermGradients:
    """Measures the terms of a Learner; `shares` as settings.Weights.shares.

    factors  name -> what a term of `shares` is multiplied with, besides its weight
    """

    def __init__(self, learner, shares, processes):
        named = {name: p for name, p in learner.named_parameters() if p.requires_grad}
        self._parameters = list(named.values())
        self._exported = [name.startswith(('model.', 'language.')) for name in named]
        self._detector = [name.startswith('model.detector.') for name in named]
        self._shares, self._processes, self.factors = dict(shares), processes, {}

    def total(self, learned):
        """The loss of a learner.BatchLoss with the factors."""
        if not self.factors:
            return learned.total
        return sum(self.factors.get(name, 1.0) * term for name, term in learned.terms.items())

    def measure(self, terms, described=True):
        """Log of weighted terms (name -> tensor), means over the processes; factors are set anew.

        described  whether this process has captions in this batch
        All processes take part, and in every term: in each, rows are exchanged anew.  One without
        captions has no language term.
        """
        names = list(dict.fromkeys(sum(self._processes.gather(list(terms)), [])))
        norms = {name: self._norms(terms.get(name, 0.0 * terms['detection'])) for name in names}
        mean = self._processes.mean
        norms = {name: tuple(map(mean, pair)) for name, pair in norms.items()}
        told, detection = mean(described) > 0.0, norms['detection'][1]
        for name, share in self._shares.items():
            self._set(name, share, norms.get(name, (0.0, 0.0))[1], detection)
        log = {}
        for name, (all_of_it, in_detector) in norms.items():
            factor = self.factors.get(name, 1.0)
            log[f'gradient_{name}'] = factor * all_of_it
            if name in ALIGNED and told and detection > 0.0:
                log[f'share_{name}'] = factor * in_detector / detection
        log.update({f'factor_{name}': factor for name, factor in self.factors.items()})
        return log

    def _norms(self, term):
        """Norms of a term's gradient over all that is exported and over the detector.

        Heads are differentiated, too: only through them goes a process that has no captions, and
        the others wait for it where rows are exchanged.
        """
        gradients = torch.autograd.grad(
            term, self._parameters, retain_graph=True, allow_unused=True
        )
        squares = [0.0 if g is None else g.float().square().sum() for g in gradients]
        return tuple(
            float(sum(square for square, counts in zip(squares, part) if counts)) ** 0.5
            for part in (self._exported, self._detector)
        )

    def _set(self, name, share, own, detection):
        """Half of the way to the wanted share, on a logarithmic scale; at first all of it."""
        if own > 0.0 and detection > 0.0:  # else there was nothing to describe
            wanted = share * detection / own
            self.factors[name] = (self.factors.get(name, wanted) * wanted) ** 0.5
