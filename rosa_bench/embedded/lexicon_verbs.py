"""The verbs of the embedded language by argument structure; every verb stands in one class only.

``break:broke:broken`` gives past and participle, ``stop*`` doubles its last consonant, ``mend=repair`` are synonyms.
"""

from __future__ import annotations

VERBS: dict[str, str] = {
    # no object, animate subject
    "intransitive": """
        sleep:slept:slept laugh sneeze yawn cough smile arrive depart vanish snore giggle weep:wept:wept shiver tremble
        faint kneel:knelt:knelt wander linger fall:fell:fallen rise:rose:risen blush frown groan sigh travel* hesitate
        stumble retire rejoice grin* nap* doze emerge dine limp loiter squirm stroll crawl jog* perish react sob* sulk
        swoon gasp chuckle cower crouch pant slouch tiptoe falter wince lurk hobble saunter stagger snooze shudder
        scowl smirk flinch gloat meditate gossip dawdle sprint bicker mope yodel fidget""",
    # an object that must be there, a thing
    "transitive": """
        mend=repair buy:bought:bought=purchase build:built:built=construct destroy=demolish find:found:found=locate
        choose:chose:chosen=select fetch=retrieve throw:threw:thrown=hurl inspect=examine hide:hid:hidden=conceal
        decorate=adorn wreck=ruin grab*=seize lift=hoist shift=move get*:got:got=obtain scrub*=scour
        bring:brought:brought=deliver remove=withdraw:withdrew:withdrawn use=utilise make:made:made=produce
        hold:held:held=grip* cover=smother arrange=organise take:took:taken=carry
        break:broke:broken=smash devour=gobble discard=jettison unlock wrap* polish measure possess mention describe
        tear:tore:torn sharpen assemble dismantle lose:lost:lost borrow steal:stole:stolen replace handle
        bind:bound:bound catch:caught:caught forget*:forgot:forgotten weave:wove:woven shake:shook:shaken crush
        drag* rent photograph""",
    # an object that must be there, a person
    "personal": """
        greet=welcome help=assist praise=commend scold=rebuke hug*=embrace follow=pursue tease=mock rescue=save
        comfort=console injure=wound trick=deceive defend=protect attack=assault hire=employ
        dismiss thank blame visit kiss punish interview tickle pester chase bite:bit:bitten applaud
        accompany recognise imitate meet:met:met flatter ignore""",
    # an object that may be left out
    "optional": """
        eat:ate:eaten sip* read:read:read write:wrote:written sing:sang:sung draw:drew:drawn study
        drive:drove:driven sew:sewed:sewn knit* win*:won:won play hunt bake dig*:dug:dug sweep:swept:swept  type
        sketch rehearse""",
    # two objects, both needed
    "ditransitive": """
        give:gave:given=grant hand=pass lend:lent:lent=loan send:sent:sent=post offer award sell:sold:sold
        owe promise serve toss feed:fed:fed bequeath forward allot*""",
    # a that-clause and nothing else
    "clausal": """
        think:thought:thought=suppose say:said:said=state
        insist=maintain boast complain=grumble argue agree reply=answer
        remark conclude pretend joke assume=presume reckon imply exclaim speculate 
        swear:swore:sworn notice know:knew:known""",
    # to + verb
    "infinitive": """
        want=wish try=attempt plan*=intend refuse decide manage fail need aim strive:strove:striven tend yearn hope
        prepare threaten""",
    # verb + ing
    "gerund": """
        enjoy=relish avoid finish=complete keep:kept:kept dislike resume quit*:quit:quit postpone risk deny miss
        practise consider defer* contemplate fancy""",
    # object + to + verb
    "object_control": """
        persuade=convince force=compel* urge=exhort instruct=command allow=permit* encourage coax beg*
        remind train tempt enable invite advise""",
    # the object feels
    "frightening": """
        frighten=scare amuse=entertain annoy=irritate delight surprise=astonish please bore worry shock puzzle=perplex
        upset*:upset:upset thrill confuse embarrass disgust horrify fascinate alarm enrage""",
    # the subject feels
    "fearing": """
        dread=abhor* admire=esteem like love=adore hate=loathe envy trust detest despise cherish value mistrust pity
        prefer* regret* respect covet appreciate""",
}
