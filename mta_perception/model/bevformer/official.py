"""Names of the published checkpoints, and ours.

One table of pairs (published, ours), read both ways.  Our names are the paths of the modules in
this folder; the published ones are those of mmdet3d's module tree (model_facts 1.10).
"""

import re

# Longer prefixes first: the first that fits is taken.
_PREFIXES = (
    ('img_backbone.', 'backbone.'),
    ('img_neck.lateral_convs.', 'neck.lateral.'),
    ('img_neck.fpn_convs.', 'neck.output.'),
    ('pts_bbox_head.code_weights', 'code_weights'),
    ('pts_bbox_head.positional_encoding.row_embed.weight', 'encoder.rows'),
    ('pts_bbox_head.positional_encoding.col_embed.weight', 'encoder.columns'),
    ('pts_bbox_head.bev_embedding.weight', 'encoder.embedding'),
    ('pts_bbox_head.query_embedding.weight', 'decoder.embedding'),
    ('pts_bbox_head.cls_branches.', 'decoder.scores.'),
    ('pts_bbox_head.reg_branches.', 'decoder.boxes.'),
    ('pts_bbox_head.transformer.level_embeds', 'encoder.level_embedding'),
    ('pts_bbox_head.transformer.cams_embeds', 'encoder.camera_embedding'),
    ('pts_bbox_head.transformer.reference_points.', 'decoder.start.'),
    ('pts_bbox_head.transformer.can_bus_mlp.norm.', 'encoder.can_bus.4.'),
    ('pts_bbox_head.transformer.can_bus_mlp.', 'encoder.can_bus.'),
    ('pts_bbox_head.transformer.encoder.layers.', 'encoder.layers.'),
    ('pts_bbox_head.transformer.decoder.layers.', 'decoder.layers.'),
)
_FEEDFORWARD = (
    ('.ffns.0.layers.0.0.', '.feedforward.0.'),
    ('.ffns.0.layers.1.', '.feedforward.3.'),
)
_SAMPLING = (
    ('sampling_offsets.', 'sampling.offsets.'),
    ('attention_weights.', 'sampling.weights.'),
    ('value_proj.', 'value.'),
    ('output_proj.', 'output.'),
)
_ENCODER = (
    *((f'.attentions.0.{theirs}', f'.temporal.{ours}') for theirs, ours in _SAMPLING),
    *(
        (f'.attentions.1.deformable_attention.{theirs}', f'.spatial.{ours}')
        for theirs, ours in _SAMPLING[:3]
    ),
    ('.attentions.1.output_proj.', '.spatial.output.'),
    *_FEEDFORWARD,
)
_DECODER = (
    ('.attentions.0.attn.', '.attention.'),
    *((f'.attentions.1.{theirs}', f'.cross.{ours}') for theirs, ours in _SAMPLING),
    *_FEEDFORWARD,
)


def official_name(name):
    """The published name of one of our tensors.  Raises KeyError."""
    for theirs, ours in _PREFIXES:
        if not name.startswith(ours):
            continue
        rest = name[len(ours) :]
        if ours.startswith('neck.'):
            rest = re.sub(r'^(\d+)\.', r'\1.conv.', rest)
        for their_part, our_part in {'encoder.layers.': _ENCODER, 'decoder.layers.': _DECODER}.get(
            ours, ()
        ):
            if our_part in '.' + rest:
                rest = ('.' + rest).replace(our_part, their_part)[1:]
                break
        return theirs + rest
    raise KeyError(f'{name} has no published name')


def name_table():
    """Rows (published, ours) that tell all names; N is any number, * the rest of a name."""
    for theirs, ours in _PREFIXES:
        parts = {'encoder.layers.': _ENCODER, 'decoder.layers.': _DECODER}.get(ours)
        if parts:
            for their_part, our_part in (*parts, ('.norms.', '.norms.')):
                yield f'{theirs}N{their_part}*', f'{ours}N{our_part}*'
        elif ours.startswith('neck.'):
            yield f'{theirs}N.conv.*', f'{ours}N.*'
        else:
            star = '*' if theirs.endswith('.') else ''
            yield theirs + star, ours + star


def to_our_names(state_dict, ours, config):
    """A published state_dict under our names, checked against `ours` (name -> tensor).

    Raises ValueError with every name that is missing, unexpected or of another shape.
    """
    pairs = {official_name(name): name for name in ours}
    missing = [name for name in pairs if name not in state_dict]
    unexpected = [name for name in state_dict if name not in pairs]
    shapes = [
        f'{name} {tuple(state_dict[name].shape)}, expected {tuple(ours[pairs[name]].shape)}'
        for name in pairs
        if name in state_dict and state_dict[name].shape != ours[pairs[name]].shape
    ]
    faults = [
        f'{what}: {", ".join(names)}'
        for what, names in (
            ('missing', missing),
            ('unexpected', unexpected),
            ('wrong shape', shapes),
        )
        if names
    ]
    if faults:
        raise ValueError(f'this is no state_dict of BEVFormer {config.name}; ' + '; '.join(faults))
    return {pairs[name]: tensor for name, tensor in state_dict.items()}
