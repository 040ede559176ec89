"""The verbs of the embedded language by argument structure; every verb stands in one class only.

``break:broke:broken`` gives past and participle, ``stop*`` doubles its last consonant, ``mend=repair`` are synonyms.
"""

from __future__ import annotations

VERBS: dict[str, str] = {
    # no object, animate subject
    "intransitive": """
        sleep:slept:slept laugh sneeze yawn cough smile arrive depart vanish snore giggle weep:wept:wept shiver tremble
        faint kneel:knelt:knelt wander linger fall:fell:fallen rise:rose:risen blush frown groan sigh travel*
        stumble fret* rejoice grin* nap* doze emerge dine limp loiter squirm stroll crawl jog* perish react sob* sulk
        swoon gasp chuckle cower crouch pant slouch tiptoe falter wince lurk hobble saunter stagger snooze shudder
        scowl smirk flinch gloat meditate gossip dawdle sprint bicker mope yodel fidget""",
    # an object that must be there, a thing
    "transitive": """
        mend=repair buy:bought:bought=purchase construct=erect destroy=demolish find:found:found=locate
        fetch=retrieve inspect=examine conceal=disguise decorate=adorn wreck=ruin grab*=seize lift=hoist
        get*:got:got=obtain scour=cleanse bring:brought:brought=convey remove=extract use=utilise
        make:made:made=fabricate cover=encase carry=transport damage=harm devour=gobble discard=jettison unlock=unbolt
        wrap* polish possess=own mention describe=depict shred* sharpen manufacture dismantle acquire borrow replace
        handle bind:bound:bound catch:caught:caught photograph crush label* bury seal repaint rearrange unwrap* inherit
        display=exhibit evaluate=assess detect=perceive duplicate=replicate require favour tighten upgrade lubricate
        straighten""",
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
        insist=contend boast complain=grumble argue agree reply=answer
        remark conclude pretend joke assume=presume reckon imply exclaim speculate 
       swear:swore:sworn quip*""",
    # to + verb
    "infinitive": """
        refuse=decline decide=resolve manage fail aim=plan* strive:strove:striven tend yearn hope threaten
        pledge=vow endeavour hesitate""",
    # verb + ing
    "gerund": """
        enjoy=relish avoid finish=complete keep:kept:kept dislike resume quit*:quit:quit postpone risk deny miss
        practise consider defer* contemplate fancy""",
    # object + to + verb
    "object_control": """
        persuade=convince force=compel* urge=exhort instruct=command allow=permit* encourage=inspire coax=cajole remind
        tempt=entice enable invite advise oblige motivate""",
    # the object feels
    "frightening": """
        frighten=scare amuse=entertain annoy=irritate delight surprise=astonish please bore worry shock puzzle=perplex
        upset*:upset:upset thrill confuse embarrass disgust horrify fascinate alarm enrage""",
    # the subject feels
    "fearing": """
        dread=abhor* admire=esteem like love=adore hate=loathe envy trust detest despise cherish value mistrust pity
        prefer* regret* respect covet appreciate""",
}
